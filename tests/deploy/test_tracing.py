"""Triton's spans of a request, sent to an OpenTelemetry collector, as parts of the caller's trace."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import vlclip
from deploy.serve import Server
from tests.deploy.test_serve import PHOTO

LEAVES = {"decode", "tokenize_prompt", "encode_prompt", "detect", "crop", "encode_image"}
TRACER = trace.get_tracer("shop")


class Collector(ThreadingHTTPServer):
    """What takes spans over OTLP, HTTP and JSON."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.spans: list[dict[str, Any]] = []

    def of_trace(self, trace_id: str, enough: set[str], seconds: float = 10) -> dict[str, dict[str, Any]]:
        """The spans of a trace by name, once those are there; "compute" is within each leaf and left out."""
        deadline = time.monotonic() + seconds
        while True:
            found = {one["name"]: one for one in self.spans if one["traceId"] == trace_id and one["name"] != "compute"}
            if enough <= found.keys() or time.monotonic() > deadline:
                return found
            time.sleep(0.05)


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
    """What docs/operations.md gives, but for every request and soon."""
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


@pytest.fixture(scope="module", autouse=True)
def provider() -> None:
    """There is one for a process, and it cannot be taken back; another test may have set it."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider())


def test_every_leaf_has_a_span_in_the_trace_of_the_caller(server: Server, collector: Collector) -> None:
    with vlclip.Client(server.grpc_url) as client, TRACER.start_as_current_span("checkout") as checkout:
        client.embed_images([PHOTO], ["mug"])
    trace_id = f"{checkout.get_span_context().trace_id:032x}"
    spans = collector.of_trace(trace_id, LEAVES | {"product_image", "InferRequest"})
    assert spans.keys() == LEAVES | {"product_image", "InferRequest"}
    assert {span["service"] for span in spans.values()} == {"vlclip"}
    # checkout > the client's call > Triton's request > the pipeline > its leaves
    assert spans["InferRequest"]["parentSpanId"] != f"{checkout.get_span_context().span_id:016x}"
    assert spans["product_image"]["parentSpanId"] == spans["InferRequest"]["spanId"]
    assert {spans[leaf]["parentSpanId"] for leaf in LEAVES} == {spans["product_image"]["spanId"]}
    for span in spans.values():
        begin, end = int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])
        assert int(spans["InferRequest"]["startTimeUnixNano"]) <= begin <= end
    assert int(spans["detect"]["startTimeUnixNano"]) >= int(spans["decode"]["endTimeUnixNano"])


def test_a_trace_shows_neither_photos_nor_texts(server: Server, collector: Collector) -> None:
    with vlclip.Client(server.grpc_url) as client, TRACER.start_as_current_span("checkout") as checkout:
        client.embed_images([PHOTO], ["a prompt of a shop"])
    found = collector.of_trace(f"{checkout.get_span_context().trace_id:032x}", {"product_image", "encode_image"})
    assert "encode_image" in found
    assert "a prompt of a shop" not in json.dumps(collector.spans)


def test_triton_s_own_mode_writes_files(toy_repositories: list[Path], tmp_path: Path) -> None:
    """A file for each trace; at its end, a server that deploy.serve stops has no time to write one for all."""
    options = ["--trace-config=level=TIMESTAMPS", "--trace-config=rate=1", "--trace-config=triton,log-frequency=1"]
    options += [f"--trace-config=triton,file={tmp_path / 'trace.json'}"]
    with Server.start(toy_repositories, options=options) as server, vlclip.Client(server.grpc_url) as client:
        client.embed_images([PHOTO], ["mug"])
        deadline, traced = time.monotonic() + 10, set[str]()
        while not traced >= LEAVES | {"product_image"} and time.monotonic() < deadline:
            written = [json.loads(file.read_text() or "[]") for file in tmp_path.glob("trace.json.*")]
            traced = {event["model_name"] for events in written for event in events if "model_name" in event}
    assert traced >= LEAVES | {"product_image"}
