"""Errors of the gateway, as problem details (RFC 9457), or in OpenAI's form on the path /v1/embeddings."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from search.index import IndexFault, WrongVersion
from search.photos import PhotoError
from search.questions import UnknownProduct
from search.shop import NoPhoto
from vlclip import AccessError, DeadlineError, InvalidInputError, OverloadedError, UnavailableError, VlclipError

RETRY_AFTER = "1"  # seconds


class Problem(Exception):
    """An answer other than success, with a sentence that says what to do."""

    def __init__(self, status: int, detail: str, *, retry: bool = False) -> None:
        super().__init__(detail)
        self.status, self.detail, self.retry = status, detail, retry


_STATUS: dict[type[Exception], int] = {
    UnknownProduct: 404,
    NoPhoto: 422,
    PhotoError: 422,
    InvalidInputError: 422,
    ValueError: 422,
    WrongVersion: 503,
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
    status = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    return Problem(status, str(error), retry=status in (503, 504))


def response(path: str, problem: Problem) -> JSONResponse:
    """The answer for a problem on a path."""
    title = HTTPStatus(problem.status).phrase
    headers = {"Retry-After": RETRY_AFTER} if problem.retry else {}
    if path == "/v1/embeddings":
        kind = "invalid_request_error" if problem.status < 500 else "server_error"
        body: dict[str, Any] = {"error": {"message": problem.detail, "type": kind, "param": None, "code": None}}
        return JSONResponse(body, problem.status, headers)
    body = {"type": "about:blank", "title": title, "status": problem.status, "detail": problem.detail}
    return JSONResponse(body, problem.status, headers, media_type="application/problem+json")


def install(app: FastAPI) -> None:
    """Answer every error of the app with a problem."""

    async def known(request: Request, error: Exception) -> JSONResponse:
        return response(request.url.path, problem_of(error))

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        details = [
            f"{'.'.join(str(part) for part in one['loc'][1:]) or 'body'}: {one['msg']}" for one in error.errors()
        ]
        return response(request.url.path, Problem(422, "; ".join(details)))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return response(request.url.path, Problem(error.status_code, str(error.detail)))

    kinds: tuple[type[Exception], ...] = (Problem, *_STATUS)
    for kind in kinds:
        app.add_exception_handler(kind, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
