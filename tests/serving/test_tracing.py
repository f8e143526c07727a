"""Triton sends the spans of a request to an OpenTelemetry collector, in the trace of the caller."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from serving.server.server import Server
from tests.asking import until
from tests.pictures import PHOTO

LEAVES = {"decode", "tokenize_prompt", "encode_prompt", "detect", "crop", "encode_image"}


class Collector(ThreadingHTTPServer):
    """Receives spans over OTLP, as JSON over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.spans: list[dict[str, Any]] = []

    def spans_of(self, trace_id: str) -> dict[str, dict[str, Any]]:
        """The spans of a trace by name, without "compute", which each leaf has."""
        return {one["name"]: one for one in self.spans if one["traceId"] == trace_id and one["name"] != "compute"}


class Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in body["resourceSpans"]:
            service = {one["key"]: one["value"] for one in resource["resource"]["attributes"]}["service.name"]
            for scope in resource["scopeSpans"]:
                self.server.spans += [{**span, "service": service["stringValue"]} for span in scope["spans"]]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        thread = Thread(target=collector.serve_forever)
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()


def settings(url: str) -> list[str]:
    """The options of docs/tracing.md, but for every request and without delay."""
    return [
        "--trace-config=mode=opentelemetry",
        "--trace-config=level=TIMESTAMPS",
        "--trace-config=rate=1",
        f"--trace-config=opentelemetry,url={url}/v1/traces",
        "--trace-config=opentelemetry,resource=service.name=vlclip",
        "--trace-config=opentelemetry,bsp_schedule_delay=100",
    ]


@pytest.fixture(scope="module")
def server(toy_repositories: list[Path], collector: Collector) -> Iterator[Server]:
    options = settings(f"http://127.0.0.1:{collector.server_port}")
    with Server.start(toy_repositories, options=options) as server:
        yield server


# A program of its own, because a process has only one provider.
SHOP = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import vlclip

exporter = InMemorySpanExporter()
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
with vlclip.Client(sys.argv[1]) as client, trace.get_tracer("shop").start_as_current_span("checkout"):
    client.embed_images([sys.stdin.buffer.read()], ["a prompt of a shop"])
call = exporter.get_finished_spans()[0].context
print(f"{call.trace_id:032x} {call.span_id:016x}")
"""


def test_every_leaf_has_a_span_in_the_callers_trace(server: Server, collector: Collector) -> None:
    names = LEAVES | {"product_image", "InferRequest"}
    asked: list[str] = []

    def is_complete() -> bool:
        # Spans are exported without a guarantee, so a trace that stays incomplete is replaced by another one.
        done = subprocess.run(
            [sys.executable, "-c", SHOP, server.grpc_url], input=PHOTO, capture_output=True, check=True
        )
        asked[:] = done.stdout.decode().split()
        give_up = time.monotonic() + 10
        while not names <= collector.spans_of(asked[0]).keys() and time.monotonic() < give_up:
            time.sleep(0.02)
        return names <= collector.spans_of(asked[0]).keys()

    until(is_complete)
    trace_id, call = asked
    spans = collector.spans_of(trace_id)
    assert spans.keys() == names
    assert {span["service"] for span in spans.values()} == {"vlclip"}
    # The client's call has Triton's request, which has the pipeline, which has its leaves.
    assert spans["InferRequest"]["parentSpanId"] == call
    assert spans["product_image"]["parentSpanId"] == spans["InferRequest"]["spanId"]
    assert {spans[leaf]["parentSpanId"] for leaf in LEAVES} == {spans["product_image"]["spanId"]}
    begins = {name: int(span["startTimeUnixNano"]) for name, span in spans.items()}
    assert begins["InferRequest"] <= begins["decode"] <= begins["detect"] <= begins["crop"] <= begins["encode_image"]
    assert all(begins[name] <= int(span["endTimeUnixNano"]) for name, span in spans.items())
    # Spans have neither photos nor texts.
    assert "a prompt of a shop" not in json.dumps(collector.spans)
