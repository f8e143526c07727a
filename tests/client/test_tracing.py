"""OpenTelemetry: a span for each call, and its context on the wire."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import vlclip
from tests.client.test_twins import numbers, twin  # noqa: F401

EXPORTER = InMemorySpanExporter()


@pytest.fixture(scope="module", autouse=True)
def provider() -> None:
    """There is one for a process, and it cannot be taken back."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(EXPORTER))
    trace.set_tracer_provider(provider)


@pytest.fixture(autouse=True)
def spans() -> InMemorySpanExporter:
    EXPORTER.clear()
    return EXPORTER


def test_a_span_for_a_call_and_its_context_in_every_request(triton, twin, spans):  # noqa: F811
    with trace.get_tracer("shop").start_as_current_span("checkout") as parent:
        twin.run(lambda c: c.embed_texts(numbers(9)), triton.address)
    call = next(span for span in spans.get_finished_spans() if span.name == "vlclip product_text")
    assert call.kind is trace.SpanKind.CLIENT
    assert call.parent.span_id == parent.get_span_context().span_id
    assert call.attributes["vlclip.items"] == 9
    assert call.attributes["server.address"] == triton.address
    context = f"00-{call.context.trace_id:032x}-{call.context.span_id:016x}-"
    assert [sent["traceparent"].startswith(context) for sent in triton.metadata] == [True] * 3


def test_a_failure_is_in_the_span(triton, twin, spans):  # noqa: F811
    triton.fail, triton.fail_times = grpc.StatusCode.UNAVAILABLE, 1
    twin.run(lambda c: c.embed_texts("1"), triton.address)
    (call,) = spans.get_finished_spans()
    assert [event.name for event in call.events] == ["retry"]
    assert call.status.is_ok

    spans.clear()
    triton.fail, triton.fail_times = grpc.StatusCode.INTERNAL, 1
    with pytest.raises(vlclip.ServerError):
        twin.run(lambda c: c.embed_texts("1"), triton.address)
    (call,) = spans.get_finished_spans()
    assert call.status.status_code is trace.StatusCode.ERROR
    assert [event.name for event in call.events] == ["exception"]


def test_without_an_sdk_nothing_is_imported(triton):
    program = f"""
import sys
from importlib.machinery import PathFinder

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("opentelemetry"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Without())
sys.path.insert(0, {str(Path(vlclip.__file__).parents[1])!r})
import vlclip
with vlclip.Client({triton.address!r}) as client:
    assert client.embed_texts("7").embedding[0, 0] == 7
assert not any(name.startswith("opentelemetry") for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
