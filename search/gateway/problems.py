"""Errors of the gateway, as problem details (RFC 9457), or in OpenAI's form on the path /v1/embeddings."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from search.index import IndexAway, IndexFault, WrongVersion
from search.photos import PhotoError
from search.questions import UnknownProduct
from search.shop import NoPhoto
from vlclip import AccessError, DeadlineError, InvalidInputError, OverloadedError, UnavailableError, VlclipError

log = logging.getLogger(__name__)
RETRY_AFTER = "1"  # seconds
OPENAI = "/v1/embeddings"


class Problem(Exception):
    """An answer other than success, with a sentence that says what to do."""

    def __init__(self, status: int, detail: str, *, retry: bool = False, param: str | None = None) -> None:
        """``param`` is the field that is wrong, which OpenAI's form of an error names."""
        super().__init__(detail)
        self.status, self.detail, self.retry, self.param = status, detail, retry, param


_STATUS: dict[type[Exception], int] = {
    UnknownProduct: 404,
    NoPhoto: 422,
    PhotoError: 422,
    InvalidInputError: 422,
    ValueError: 422,
    WrongVersion: 503,
    IndexAway: 503,
    IndexFault: 409,
    OverloadedError: 503,
    UnavailableError: 503,
    DeadlineError: 504,
    AccessError: 502,
    VlclipError: 502,
}
"""The HTTP status of each error. The most specific class decides."""


def problem_of(error: Exception) -> Problem:
    """The problem that an error is for a caller of the gateway."""
    if isinstance(error, Problem):
        return error
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)
    if status == 500:
        log.error("a request failed", exc_info=error)
        return Problem(500, "the gateway failed; its log says why")
    return Problem(status, str(error), retry=status in (503, 504))


def response(path: str, problem: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer for a problem on a path."""
    title = HTTPStatus(problem.status).phrase
    headers = dict(headers or {})
    if problem.retry:
        headers["Retry-After"] = RETRY_AFTER
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    detail = problem.detail.encode(errors="backslashreplace").decode()  # a caller's text can hold half of a surrogate
    if path == OPENAI:
        kind = "invalid_request_error" if problem.status < 500 else "server_error"
        code = "invalid_api_key" if problem.status == 401 else None
        body: dict[str, Any] = {"error": {"message": detail, "type": kind, "param": problem.param, "code": code}}
        return JSONResponse(body, problem.status, headers)
    body = {"type": "about:blank", "title": title, "status": problem.status, "detail": detail}
    return JSONResponse(body, problem.status, headers, media_type="application/problem+json")


FORMS = {
    "filters": 'expected a value, a list of values, a range such as {"gte": 5, "lt": 20}, or {"not": value or list}',
    "input": 'expected a text, a data URI, {"text": …}, {"image": …, "product_type": …}, or a list of 1 to 256 of them',
}
"""What fields with several forms can be. Pydantic would report each form."""


def invalid(path: str, errors: Sequence[Any]) -> Problem:
    """The problem of a request that does not fit its model, from the errors of pydantic."""
    fields: dict[str, str] = {}
    for one in errors:
        place = [str(part) for part in one["loc"] if part != "body"]
        if one["type"] == "json_invalid":
            fields.setdefault("body", "expected JSON")
        elif place and place[0] in FORMS:
            fields.setdefault(".".join(place[:2] if place[0] == "filters" else place[:1]), FORMS[place[0]])
        else:
            fields.setdefault(".".join(place) or "body", one["msg"])
    detail = "; ".join(f"{name}: {message}" for name, message in list(fields.items())[:10])
    return Problem(400 if path == OPENAI else 422, detail, param=next(iter(fields), None))


def install(app: FastAPI) -> None:
    """Answer every error of the app with a problem."""

    async def known(request: Request, error: Exception) -> JSONResponse:
        problem = problem_of(error)
        if request.url.path == OPENAI and problem.status == 422:
            problem.status = 400  # as OpenAI answers
        return response(request.url.path, problem)

    async def unfit(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return response(request.url.path, invalid(request.url.path, error.errors()))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return response(request.url.path, Problem(error.status_code, str(error.detail)), error.headers)

    kinds: tuple[type[Exception], ...] = (Problem, *_STATUS, Exception)
    for kind in kinds:
        app.add_exception_handler(kind, known)
    app.add_exception_handler(RequestValidationError, unfit)
    app.add_exception_handler(HTTPException, http)
