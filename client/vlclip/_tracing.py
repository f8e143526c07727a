"""OpenTelemetry spans: one for each call, with its context in the headers of each request.

The OpenTelemetry SDK is optional. It is imported at the first call if it is installed.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any


@cache
def _tracer() -> Any:
    try:
        installed = find_spec("opentelemetry.sdk") is not None
    except ModuleNotFoundError:
        installed = False
    if not installed:
        return None
    from opentelemetry import trace

    return trace.get_tracer("vlclip")


class Span:
    """The span of one call. Without the SDK it does nothing."""

    def __init__(self, pipeline: str, address: str) -> None:
        self._span: Any = None
        self.headers: list[tuple[str, str]] = []
        tracer = _tracer()
        if tracer is not None:
            from opentelemetry import propagate, trace

            attributes = {"rpc.system": "grpc", "rpc.method": "ModelInfer", "server.address": address}
            self._span = tracer.start_span(f"vlclip {pipeline}", kind=trace.SpanKind.CLIENT, attributes=attributes)
            if self._span.get_span_context().is_valid:  # else the application has no tracer provider
                carrier: dict[str, str] = {}
                propagate.inject(carrier, context=trace.set_span_in_context(self._span))
                self.headers = list(carrier.items())

    def retried(self, error: Exception) -> None:
        """Adds an event for a failed try that is followed by another."""
        if self._span is not None:
            self._span.add_event("retry", {"error": str(error)})

    def end(self, items: int, error: BaseException | None = None) -> None:
        if self._span is None:
            return
        from opentelemetry.trace import StatusCode

        self._span.set_attribute("vlclip.items", items)
        if error is not None:
            self._span.record_exception(error)
            self._span.set_status(StatusCode.ERROR, str(error))
        self._span.end()
