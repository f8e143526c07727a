"""The errors of the client.

VlclipError
 ├─ InvalidInputError      an argument is not what was expected; also a ValueError
 ├─ ClosedError            the client was used after close()
 ├─ ForkError              gRPC does not work in this process, because of when it was forked
 ├─ ContractError          the response does not match the pipeline's contract
 ├─ ItemError              an image was not decoded or read, in a call with errors="raise"; see `index` and `status`
 └─ RequestError           a request failed; `code` is its gRPC status code
     ├─ UnavailableError       there is no server, or it is loading or stopping; was retried
     ├─ DeadlineError          no response within `timeout`; also a TimeoutError
     ├─ CancelledError         the client or the server cancelled the request
     ├─ OverloadedError        the server has too much to do, or a quota is exhausted; was retried
     ├─ AccessError            the caller is not authenticated, or not permitted
     ├─ PipelineNotFoundError  the server does not have this pipeline
     ├─ RejectedError          the server does not accept this request; a retry does not help
     └─ ServerError            the server failed

A file that `enrich` cannot read raises Python's own OSError. Every error that ends a call has `error.partial`: the
result of the items before the failure, in their order, or None if there is none.

A message consists of the problem and of the advice. `error.message(names)` spells the client's arguments in both as
another program calls them: the command line passes its flags.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import grpc

ARGUMENTS: Mapping[str, str] = MappingProxyType(
    {
        "ca": "`ca` of vlclip.TLS",
        "max_in_flight": "`max_in_flight`",
        "server_name": "`server_name` of vlclip.TLS",
        "timeout": "`timeout`",
        "tls": "`tls`",
    }
)
"""How the advice of an error spells the arguments of the client, for callers of Python."""


class VlclipError(Exception):
    """The base class of the client's errors.

    problem   what was expected and what came
    argument  the argument that the problem is about, such as "address"; empty if it is about another thing
    advice    what to do. Arguments are in braces, as in "pass a longer {timeout}"; see ``ARGUMENTS``
    """

    partial: Any = None
    """The result of the items before the failure, in their order, or ``None``."""

    def __init__(self, problem: str, *, argument: str = "", advice: str = "") -> None:
        super().__init__(problem)
        self.problem, self.argument, self.advice = problem, argument, advice

    def __str__(self) -> str:
        return self.message()

    def message(self, names: Mapping[str, str] = MappingProxyType({})) -> str:
        """The problem and the advice, with the arguments spelled as in ``names``: {"timeout": "--timeout"}."""
        subject = f"{names.get(self.argument, self.argument)}: " if self.argument else ""
        advice = f". {self.advice.format_map({**ARGUMENTS, **names})}" if self.advice else ""
        return f"{subject}{self.problem}{advice}"


class InvalidInputError(VlclipError, ValueError):
    """An argument is not what was expected."""


class ClosedError(VlclipError):
    """The client was used after ``close()``."""


class ForkError(VlclipError):
    """gRPC does not work in this process, because of when it was forked."""


class ContractError(VlclipError):
    """The response does not match the pipeline's contract."""


class ItemError(VlclipError):
    """An image was not decoded, or its file could not be read, in a call with ``errors="raise"``.

    index   position of the image in the call
    status  its `Status`
    """

    def __init__(self, problem: str, index: int | None = None, status: int | None = None) -> None:
        super().__init__(problem)
        self.index, self.status = index, status


class RequestError(VlclipError):
    """A request failed; ``code`` is its gRPC status code."""

    def __init__(
        self, problem: str, code: grpc.StatusCode | None = None, *, argument: str = "", advice: str = ""
    ) -> None:
        super().__init__(problem, argument=argument, advice=advice)
        self.code = code


class UnavailableError(RequestError):
    """There is no server, or it is loading or stopping."""


class DeadlineError(RequestError, TimeoutError):
    """There was no response within the time-out."""


class CancelledError(RequestError):
    """The client or the server cancelled the request."""


class OverloadedError(RequestError):
    """The server is overloaded, or a quota is exhausted."""


class AccessError(RequestError):
    """The caller is not authenticated, or not permitted."""


class PipelineNotFoundError(RequestError):
    """The server does not have this pipeline."""


class RejectedError(RequestError):
    """The server does not accept this request."""


class ServerError(RequestError):
    """The server failed."""


_ADVICE: dict[type[RequestError], str] = {
    UnavailableError: "If no server runs there, start one with `make serve`, or correct the address (host and gRPC "
    "port, usually 8001). If one does, it is loading or stopping: try again",
    DeadlineError: "The server is overloaded or does not respond: try again, or pass a longer {timeout}",
    CancelledError: "The client or the server cancelled the request: send it again if you still need it",
    OverloadedError: "Try again later, or send less at once: smaller images, or a lower {max_in_flight}",
    AccessError: "Ask the operator of the server for access",
    PipelineNotFoundError: "Check that the address is that of a VL-CLIP server, and that its models were built "
    "(`make models`)",
    RejectedError: "The client and the server may be of different versions: update both",
    ServerError: "The server's log has the reason",
}

_ADVICE_BY_DETAILS = {
    "wrong_version_number": "The server does not use TLS on this port: remove {tls}, or use the server's TLS port",
    "certificate": "The server's certificate is not trusted: pass the authority that signed it as {ca}",
    "hostname verification": "The server's certificate is for another name than the address: pass that name as "
    "{server_name}",
    "socket closed": "The server closed the connection. It stopped, or this is not its gRPC port (usually 8001, while "
    "8000 is HTTP), or it requires TLS: pass {tls}",
    "http1.x server": "This port is one of HTTP, while the client needs that of gRPC, usually 8001: correct "
    "the address",
    "shared-memory-key": "Shared memory requires the key of the server: set VLCLIP_SHARED_MEMORY_KEY to it for this "
    "program, or remove `shared_memory`",
    "shared memory is disabled": "Triton 26.04 and newer refuse the shared memory of clients by default: start the "
    "server with `--allow-client-shm=true`, or remove `shared_memory`",
}
"""Advice for failures that gRPC's and Triton's details describe better than the status code."""

_OTHER_PORTS = {
    "8000": "Port 8000 is usually that of HTTP, while the client needs the port of gRPC: try 8001",
    "8002": "Port 8002 is usually that of metrics, while the client needs the port of gRPC: try 8001",
}

_ERRORS: dict[grpc.StatusCode, type[RequestError]] = {
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
    grpc.StatusCode.CANCELLED: CancelledError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.UNAUTHENTICATED: AccessError,
    grpc.StatusCode.PERMISSION_DENIED: AccessError,
    grpc.StatusCode.NOT_FOUND: PipelineNotFoundError,
    grpc.StatusCode.UNIMPLEMENTED: PipelineNotFoundError,
    grpc.StatusCode.INVALID_ARGUMENT: RejectedError,
    grpc.StatusCode.FAILED_PRECONDITION: RejectedError,
    grpc.StatusCode.OUT_OF_RANGE: RejectedError,
    grpc.StatusCode.ALREADY_EXISTS: RejectedError,
    grpc.StatusCode.INTERNAL: ServerError,
    grpc.StatusCode.UNKNOWN: ServerError,
    grpc.StatusCode.ABORTED: ServerError,
    grpc.StatusCode.DATA_LOSS: ServerError,
}


@contextmanager
def translated(what: str, address: str, allowed: float, tries: int = 1) -> Iterator[None]:
    """Raises gRPC's errors as the client's. ``address`` had ``allowed`` seconds to answer the request ``what``."""
    try:
        yield
    except grpc.FutureCancelledError as exc:
        raise _error(grpc.StatusCode.CANCELLED, "cancelled by the client", what, address, allowed, tries) from exc
    except grpc.RpcError as exc:
        raise _error(exc.code(), exc.details(), what, address, allowed, tries) from exc


def _kind(code: grpc.StatusCode, details: str) -> type[RequestError]:
    """The error for a status code, except where gRPC's or Triton's code is not the one that a client would expect."""
    if code is grpc.StatusCode.NOT_FOUND and "no available versions" in details:
        return UnavailableError  # Triton loads the model, or its process died
    if code is grpc.StatusCode.UNAVAILABLE and ("overloaded: " in details or "Exceeds maximum queue size" in details):
        return OverloadedError  # the first model of a pipeline, or its full queue; neither can set RESOURCE_EXHAUSTED
    if "protocol is restricted" in details:
        return AccessError  # Triton 2.51 returns UNAVAILABLE
    if code is grpc.StatusCode.UNKNOWN and "Stream removed" in details:
        return UnavailableError  # gRPC, when a connection was reset
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return RejectedError
    if code is grpc.StatusCode.UNIMPLEMENTED and "shared memory is disabled" in details:
        return RejectedError
    return _ERRORS[code]


def _error(
    code: grpc.StatusCode, details: str | None, what: str, address: str, allowed: float, tries: int
) -> RequestError:
    kind = _kind(code, details or "")
    known = (advice for text, advice in _ADVICE_BY_DETAILS.items() if text in (details or "").lower())
    attempts = f", tried {tries} times" if tries > 1 else ""
    problem = f"{what} from {address}, allowed {allowed:.3g} s{attempts}: {code.name} ({details or 'no details'})"
    advice = next(known, _ADVICE[kind] + _about_ports(kind, address) + _about_localhost(details or "", address))
    return kind(problem, code, advice=advice)


def _about_ports(kind: type[RequestError], address: str) -> str:
    """Advice if no gRPC server answers and a port of the address is one that Triton uses for other protocols."""
    others = [name for port, name in _OTHER_PORTS.items() if port in address.replace(",", " ").split(":")]
    return f". {others[0]}" if others and kind in (UnavailableError, DeadlineError) else ""


def _about_localhost(details: str, address: str) -> str:
    """Advice if gRPC reports that nothing answers on ::1, which may hide why 127.0.0.1 failed, such as TLS."""
    if "localhost" not in address or "ipv6:%5B::1%5D" not in details:
        return ""
    return ". This is the failure of ::1. To see that of the other address of localhost, use 127.0.0.1"
