"""LoadGen's verdicts reach the figures, and what answers from memory is found out."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from benchmarks.loadgen import PAIRS, SCENARIOS, Result, System, broken, compare_repeats, main, settings_of
from benchmarks.photos import Sample
from serving.server.server import Server
from tests.client.faults import TcpProxy
from tests.pictures import encode, picture
from vlclip import Client


@pytest.fixture(scope="module")
def server(toy_repositories: list[Path]) -> Iterator[Server]:
    """Toys, which answer hundreds of photos a second."""
    with Server.start(toy_repositories) as server:
        yield server


@pytest.fixture(scope="module")
def photos() -> list[Sample]:
    return [(encode(picture(seed=seed), "JPEG"), "mug") for seed in range(16 * PAIRS)]


def test_the_figures_are_what_loadgen_says(
    server: Server, photos: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    for number, (file, _) in enumerate(photos):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(file)
    options = ["--photos", tmp_path / "photos", "--url", server.grpc_url, "--out", tmp_path, "--seconds", 0.5]
    # Too fast for any server: the queries wait, and are late.
    options += ["--rate", 2000, "--latency", 10]
    monkeypatch.setattr("sys.argv", ["loadgen", *map(str, options)])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 1
    report = json.loads((tmp_path / "loadgen.json").read_text())
    rows = report["scenarios"]
    assert set(rows) == set(SCENARIOS)
    for scenario, row in rows.items():
        summary = (tmp_path / scenario / "mlperf_log_summary.txt").read_text()
        assert f"Scenario : {scenario}" in summary
        assert f"Result is : {row['LoadGen says']}" in summary
        p90_ns = re.search(r"90.00 percentile latency .ns. *: (\d+)", summary)
        assert p90_ns
        assert row["p90 ms"] == round(int(p90_ns[1]) / 1e6, 2)
    assert rows["SingleStream"]["LoadGen says"] == "VALID"
    assert rows["Server"]["LoadGen says"] == "INVALID"
    assert any("Server is INVALID: more than 1 % of the answers took longer" in said for said in report["broken"])


@pytest.mark.parametrize(("delay", "valid"), [(0, True), (0.4, False)], ids=["as it is", "made slow"])
def test_a_slow_server_is_invalid(
    server: Server, photos: list[Sample], tmp_path: Path, delay: float, valid: bool
) -> None:
    settings = settings_of("Server", 0, 50, 0)
    settings.server_target_qps, settings.server_target_latency_ns = 25, 300_000_000
    settings.server_target_latency_percentile = 0.8
    proxy = TcpProxy(server.grpc_url)
    proxy.delay = delay
    try:
        with Client(proxy.address, retry=None) as client:
            result = Result.of("Server", System(client, 16).run(photos, settings, tmp_path), [], "")
    finally:
        proxy.close()
    assert result.valid == valid
    assert bool(result.reasons) != valid


def test_failed_requests_make_it_invalid(photos: list[Sample], tmp_path: Path) -> None:
    with Client("127.0.0.1:9", retry=None, timeout=1) as client:
        system = System(client, 4)
        log = system.run(photos, settings_of("SingleStream", 0, 64, 0), tmp_path)
    result = Result.of("SingleStream", log, system.failures, "")
    assert log["result_validity"] == "VALID"
    assert not result.valid
    assert "64 requests failed, the first with UnavailableError" in result.reasons[0]


class Instant(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers any batch at once, with zeros."""

    def ModelConfig(self, request: Any, context: Any) -> Any:
        response = service_pb2.ModelConfigResponse()
        response.config.max_batch_size = 64
        return response

    def ModelInfer(self, request: Any, context: Any) -> Any:
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        n = request.inputs[0].shape[0]
        for output in request.outputs:
            width = {"EMBEDDING": 512, "BOX": 4}.get(output.name, 1)
            datatype = "INT32" if output.name == "STATUS" else "FP32"
            response.outputs.add(name=output.name, datatype=datatype, shape=[n, width])
            response.raw_output_contents.append(bytes(4 * n * width))
        return response


class Forgetful(Instant):
    """Takes 10 ms for any photo. A stand-in for a server whose cache is turned off."""

    def ModelInfer(self, request: Any, context: Any) -> Any:
        time.sleep(0.01)
        return super().ModelInfer(request, context)


class Caching(Forgetful):
    """Answers at once what it was asked before. A stand-in for a cache, which our own server has not."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()

    def ModelInfer(self, request: Any, context: Any) -> Any:
        photo = b"".join(request.raw_input_contents)
        if photo in self.seen:
            return Instant.ModelInfer(self, request, context)
        self.seen.add(photo)
        return super().ModelInfer(request, context)


@pytest.fixture(params=[Forgetful, Caching])
def stand_in(request: pytest.FixtureRequest) -> Iterator[tuple[str, bool]]:
    """Its address, and whether it caches."""
    server = grpc.server(ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(request.param(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", request.param is Caching
    server.stop(None)


def test_repeats_that_are_faster_are_found(stand_in: tuple[str, bool], photos: list[Sample], tmp_path: Path) -> None:
    url, caches = stand_in
    with Client(url, retry=None) as client:
        check = compare_repeats(System(client, 2), photos, tmp_path)
    assert check["held"] != caches
    assert check["photos"] == 15
    said = broken([], check, [])
    assert bool(said) == caches
    assert all("Repeats are faster than unique samples" in sentence for sentence in said)
