"""OpenTelemetry at the gateway: a span for a request, in its caller's trace, and the parent of the client's span."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from pathlib import Path

from fastapi.testclient import TestClient
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from search.gateway.app import create_app
from search.gateway.guard import Settings
from search.shop import Shop
from search.store import FolderStore
from vlclip import Client

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
with Client("127.0.0.1:1", timeout=0.5) as client:
    http = TestClient(create_app(Shop(FolderStore(Path(sys.argv[1])), client), client, Settings()))
    caller = {"traceparent": f"00-{7:032x}-{9:016x}-01"}
    answer = http.post("/v1/embeddings", json={"input": "a"}, headers=caller)
assert answer.status_code in (503, 504), answer.text
spans = exporter.get_finished_spans()
request = next(span for span in spans if span.kind is trace.SpanKind.SERVER)
call = next(span for span in spans if span.name == "vlclip product_text")
assert request.name == "POST /v1/embeddings"
assert request.parent.span_id == 9
assert request.context.trace_id == call.context.trace_id == 7
parents = {span.context.span_id: span for span in spans}
while call is not request:
    call = parents[call.parent.span_id]
"""


def test_a_request_is_a_span_between_its_caller_and_the_client(tmp_path: Path) -> None:
    """In a process of its own, because a process can set one tracer provider."""
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], check=True, timeout=120)
