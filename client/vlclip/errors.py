"""Everything that the client raises.

VlclipError
 ├─ InvalidInputError      an argument is not what was expected; also a ValueError
 ├─ ClosedError            the client was used after close()
 ├─ ContractError          the server's answer is not what the pipeline's contract says
 ├─ ItemError              an image was not decoded, and the call said errors="raise"; `index` and `status` say which
 └─ RequestError           a request failed; `code` is its gRPC status code
     ├─ UnavailableError       no server there, or one that is loading or stopping: was tried again
     ├─ DeadlineError          no answer within `timeout`; also a TimeoutError
     ├─ CancelledError         cancelled, by this side or by the server
     ├─ OverloadedError        the server has too much to do, or a quota is exhausted: was tried again
     ├─ AccessError            not authenticated, or not permitted
     ├─ PipelineNotFoundError  the server does not serve this pipeline
     ├─ RejectedError          the server refuses the request as it is: sending it again will not help
     └─ ServerError            the server failed

A file that cannot be read raises Python's own OSError. Whatever ends a call, `error.partial` is the result of the
items before, as many as had come in order; it is None where there are none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc


class VlclipError(Exception):
    """Root of the tree."""

    partial: Any = None
    """The result of the items that had come before, if any."""


class InvalidInputError(VlclipError, ValueError):
    """An argument is not what was expected."""


class ClosedError(VlclipError):
    """The client was used after ``close()``."""


class ContractError(VlclipError):
    """The server's answer is not what the pipeline's contract says."""


class ItemError(VlclipError):
    """An image was not decoded, and the call was to raise then."""

    def __init__(self, message: str, index: int | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.index, self.status = index, status


class RequestError(VlclipError):
    """A request failed."""

    def __init__(self, message: str, code: grpc.StatusCode | None = None) -> None:
        super().__init__(message)
        self.code = code


class UnavailableError(RequestError):
    """No server is there, or it is loading or stopping."""


class DeadlineError(RequestError, TimeoutError):
    """No answer came in time."""


class CancelledError(RequestError):
    """The request was cancelled."""


class OverloadedError(RequestError):
    """The server has too much to do, or a quota is exhausted."""


class AccessError(RequestError):
    """Not authenticated, or not permitted."""


class PipelineNotFoundError(RequestError):
    """The server does not serve this pipeline."""


class RejectedError(RequestError):
    """The server refuses the request as it is."""


class ServerError(RequestError):
    """The server failed."""


_ADVICE: dict[type[RequestError], str] = {
    UnavailableError: "If no server runs there, start one with `make serve`, or correct the address (host and gRPC "
    "port, usually 8001); if one does, it is loading or stopping: try again",
    DeadlineError: "The server is overloaded or stuck: try again, or pass a longer `timeout`",
    CancelledError: "The client was closed, or the server gave the request up: send it again if it is still wanted",
    OverloadedError: "Try again later, or send less at once: smaller images, or a lower `max_in_flight`",
    AccessError: "Ask whoever runs the server for access to it",
    PipelineNotFoundError: "Ask the address of a VL-CLIP server, whose models were built (`make models`)",
    RejectedError: "The client and the server may be of different versions: update both",
    ServerError: "The reason is in the server's log",
}

_SIGNS = {
    "wrong_version_number": "The server does not encrypt: leave out `tls`, or ask for its encrypted port",
    "certificate": "The server's certificate is not trusted: pass the authority that signed it as `ca` of vlclip.TLS",
    "hostname verification": "The server's certificate is for another name than the address: pass that name as "
    "`server_name` of vlclip.TLS",
    "socket closed": "The server hung up: it stopped, or expects an encrypted connection (tls=True)",
}
"""What gRPC says of connections that fail for other reasons than their code tells."""

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
    """Raise gRPC's errors as ours; ``what`` was asked of ``address``, with ``allowed`` seconds to answer."""
    try:
        yield
    except grpc.FutureCancelledError as exc:
        raise _error(grpc.StatusCode.CANCELLED, "cancelled by this side", what, address, allowed, tries) from exc
    except grpc.RpcError as exc:
        raise _error(exc.code(), exc.details(), what, address, allowed, tries) from exc


def _kind(code: grpc.StatusCode, details: str) -> type[RequestError]:
    """As the code says, but where servers and gRPC itself say it otherwise."""
    if code is grpc.StatusCode.NOT_FOUND and "no available versions" in details:
        return UnavailableError  # Triton, while it loads a model or after it lost one
    if code is grpc.StatusCode.UNAVAILABLE and "overloaded: " in details:
        return OverloadedError  # a pipeline's first step, for which Triton has no other code
    if "protocol is restricted" in details:
        return AccessError  # Triton 2.51 says UNAVAILABLE
    if code is grpc.StatusCode.UNKNOWN and "Stream removed" in details:
        return UnavailableError  # gRPC, of a connection that was cut
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return RejectedError
    return _ERRORS[code]


def _error(
    code: grpc.StatusCode, details: str | None, what: str, address: str, allowed: float, tries: int
) -> RequestError:
    kind = _kind(code, details or "")
    advice = next((advice for sign, advice in _SIGNS.items() if sign in (details or "").lower()), _ADVICE[kind])
    often = f", tried {tries} times" if tries > 1 else ""
    came = f"{what} from {address}, allowed {allowed:.3g} s{often}: {code.name} ({details or 'no details'})"
    return kind(f"{came}. {advice}.", code)
