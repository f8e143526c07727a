"""OpenTelemetry: a span for each call, and its context in the headers of each request."""

from __future__ import annotations

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import vlclip
from tests.client.conftest import FakeTriton
from tests.client.twins import Twin, numbers

EXPORTER = InMemorySpanExporter()


@pytest.fixture(scope="module", autouse=True)
def provider() -> None:
    """The provider of this process, which cannot be replaced."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(EXPORTER))
    trace.set_tracer_provider(provider)


@pytest.fixture(autouse=True)
def spans() -> InMemorySpanExporter:
    EXPORTER.clear()
    return EXPORTER


def test_a_span_for_a_call_and_its_context_in_every_request(
    triton: FakeTriton, twin: Twin, spans: InMemorySpanExporter
) -> None:
    with twin(triton.address) as client, trace.get_tracer("shop").start_as_current_span("checkout") as parent:
        client.embed_texts(numbers(9))
    call = next(span for span in spans.get_finished_spans() if span.name == "vlclip product_text")
    assert call.kind is trace.SpanKind.CLIENT
    assert call.parent
    assert call.attributes
    assert call.parent.span_id == parent.get_span_context().span_id
    assert call.attributes["vlclip.items"] == 9
    assert call.attributes["server.address"] == triton.address
    context = f"00-{call.context.trace_id:032x}-{call.context.span_id:016x}-"
    assert [sent["traceparent"].startswith(context) for sent in triton.metadata] == [True] * 3


def test_a_failure_is_in_the_span(triton: FakeTriton, twin: Twin, spans: InMemorySpanExporter) -> None:
    with twin(triton.address) as client:
        triton.fail, triton.fail_times = grpc.StatusCode.UNAVAILABLE, 1
        client.embed_texts("1")
        triton.fail, triton.fail_times = grpc.StatusCode.INTERNAL, 1
        with pytest.raises(vlclip.ServerError):
            client.embed_texts("1")
    retried, call = spans.get_finished_spans()
    assert [event.name for event in retried.events] == ["retry"]
    assert retried.status.is_ok
    assert call.status.status_code is trace.StatusCode.ERROR
    assert [event.name for event in call.events] == ["exception"]
