"""Fragments are laid over configs, are refused where they touch the contract, and are served."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
import pytest
import tritonclient.grpc
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from serving.backends.onnxruntime.model import threads_of
from serving.backends.onnxruntime.sessions import providers_of
from serving.errors import SetupError
from serving.paths import REPOSITORIES
from serving.repository.profiles import CONTAINER, EMBEDDED_CPU, PROFILES, read_config
from serving.repository.specs import LEAVES, PIPELINES
from serving.repository.view import View
from serving.repository.write import write_repository
from serving.server.api import request
from serving.server.server import Server
from serving.server.stubs import find_stubs
from serving.triton_metrics import parse_metrics
from tests import toys
from tests.asking import ask_grpc, until
from tests.pictures import PHOTO

MODELS, ENSEMBLES = REPOSITORIES


def profile_of(folder: Path, **fragments: str) -> Path:
    folder.mkdir()
    for model, fragment in fragments.items():
        (folder / f"{model}.pbtxt").write_text(fragment)
    return folder


def parameter(name: str, value: str | int) -> str:
    return f'parameters {{ key: "{name}" value: {{ string_value: "{value}" }} }}'


@pytest.mark.parametrize(
    ("base", "fragment", "expected"),
    [
        pytest.param("max_batch_size: 8", "max_batch_size: 4", "max_batch_size: 4", id="a number replaces"),
        pytest.param(
            "dynamic_batching { preserve_ordering: true }",
            "dynamic_batching { max_queue_delay_microseconds: 5 }",
            "dynamic_batching { preserve_ordering: true max_queue_delay_microseconds: 5 }",
            id="a message merges",
        ),
        pytest.param(
            "dynamic_batching { preferred_batch_size: [ 1, 2 ] }",
            "dynamic_batching { preferred_batch_size: 8 }",
            "dynamic_batching { preferred_batch_size: 8 }",
            id="a list in a message replaces",
        ),
        pytest.param(
            parameter("a", 1) + parameter("b", 2),
            parameter("b", 3) + parameter("c", 4),
            parameter("a", 1) + parameter("b", 3) + parameter("c", 4),
            id="a map replaces by key",
        ),
        pytest.param(
            'ensemble_scheduling { step [ { model_name: "a" model_version: -1 input_map { key: "X" value: "X" } } ] }',
            """ensemble_scheduling { step [
                { model_name: "a" input_map { key: "Y" value: "Y" } }, { model_name: "b" model_version: -1 } ] }""",
            """ensemble_scheduling { step [
                { model_name: "a" model_version: -1
                  input_map { key: "X" value: "X" } input_map { key: "Y" value: "Y" } },
                { model_name: "b" model_version: -1 } ] }""",
            id="a step merges with the step of its model",
        ),
    ],
)
def test_fragment_is_laid_over(tmp_path: Path, base: str, fragment: str, expected: str) -> None:
    """A profile laid over twice gives the same config: a written repository may be served with its profile."""
    (tmp_path / "custom").mkdir()
    (tmp_path / "custom" / "config.pbtxt").write_text(base)
    profile = profile_of(tmp_path / "ngc-mine", custom=fragment, graphs='backend: "of no graph"')
    wanted = text_format.Parse(expected, ModelConfig(name="custom"))
    if wanted.HasField("ensemble_scheduling"):
        wanted.ensemble_scheduling.max_inflight_requests = wanted.ensemble_scheduling.max_inflight_requests or 128
    elif not wanted.instance_group:
        wanted.instance_group.add(count=1, kind=ModelInstanceGroup.KIND_CPU)
    assert read_config(tmp_path / "custom", profile) == wanted
    assert read_config(tmp_path / "custom") == text_format.Parse(base, ModelConfig(name="custom"))
    (tmp_path / "custom" / "config.pbtxt").write_text(text_format.MessageToString(wanted))
    assert read_config(tmp_path / "custom", profile) == wanted


def test_fragments_for_a_kind_come_first_and_those_of_the_server_before_all(tmp_path: Path) -> None:
    profile = profile_of(
        tmp_path / "mine",
        graphs="instance_group [ { count: 2 } ]" + parameter("count_grounding", "no"),
        python="instance_group [ { count: 3 } ]",
        pipelines="max_batch_size: 8",
        fit="instance_group [ { count: 4 } ]",
        tokenize=parameter("max_wait_seconds", 9),
    )
    configs = View(tmp_path, REPOSITORIES, profile).configs
    counts = {"detect": 2, "crop": 2, "fit": 4, "decode": 3, "enrich": 3}
    assert {leaf: configs[leaf].instance_group[0].count for leaf in counts} == counts
    assert {configs[pipeline].max_batch_size for pipeline in PIPELINES} == {8}
    assert configs["crop"].parameters["count_grounding"].string_value == "no"
    tokenize = {name: value.string_value for name, value in configs["tokenize"].parameters.items()}
    assert tokenize == {"max_characters": "1024", "max_wait_seconds": "9", "ahead": "tokenize encode_text"}
    assert [tensor.name for tensor in configs["encode_prompt"].input] == ["TOKENS", "DECODED"]


@pytest.mark.parametrize(
    ("model", "fragment", "complaint"),
    [
        ("crop", 'name: "other"', "must not set name: a profile decides backend"),
        ("crop", 'platform: "onnxruntime_onnx"', "must not set platform"),
        ("ngc-mine/crop", 'input [ { name: "MORE" } ]', "must not set input: a graph takes the inputs of its file"),
        ("decode", 'input [ { name: "IMAGE" } ]', "must not change the input IMAGE: it can only add inputs"),
        ("crop", 'output [ { name: "MORE" } ]', "must not set output"),
        ("crop", "sequence_batching {}", "must not set sequence_batching"),
        ("crop", "version_policy { latest {} }", "must not set version_policy"),
        ("crop", "model_transaction_policy { decoupled: true }", "must not set model_transaction_policy"),
        ("crop", "max_batch_size: 65", "raises max_batch_size from 64 to 65: it can only lower it"),
        ("crop", "ensemble_scheduling { max_inflight_requests: 2 }", "must not set ensemble_scheduling: it is for a"),
        ("ground", 'input [ { name: "MORE" } ]', "must not set input: a pipeline is wiring only"),
        ("ground", "dynamic_batching {}", "must not set dynamic_batching: a pipeline is wiring only"),
        ("ground", "instance_group [ { count: 2 } ]", "must not set instance_group"),
        ("crop", "instance_groups {}", 'is no model config: .*no field named "instance_groups"'),
        ("crop", "instance_group {", "is no model config"),
    ],
)
def test_fragment_that_touches_the_contract_is_refused(
    tmp_path: Path, model: str, fragment: str, complaint: str
) -> None:
    folder, model = model.rsplit("/", 1) if "/" in model else ("profile", model)
    profile = profile_of(tmp_path / folder, **{model: fragment})
    with pytest.raises(SetupError, match=rf"{folder}/{model}\.pbtxt {complaint}"):
        read_config((ENSEMBLES if model in PIPELINES else MODELS) / model, profile)


def test_embedded_server_refuses_what_it_cannot_serve(toy_repositories: list[Path]) -> None:
    with pytest.raises(SetupError, match=r"ngc-tensorrt is not for the embedded server, \w+: .* max_(queue|inflight)_"):
        Server.start(toy_repositories, profile="ngc-tensorrt")


def test_fragment_for_an_unknown_model_is_refused(toy_repositories: list[Path], tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"has fragments for models that do not exist: detector$"):
        Server.start(toy_repositories, profile=profile_of(tmp_path / "mine", detector="", observe=""))


def config_of(server: Server, model: str) -> ModelConfig:
    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as client:
        config: ModelConfig = client.get_model_config(model).config
        return config


def test_embedded_server_runs_graphs_on_the_cpu_by_default(server: Server) -> None:
    (group,) = config_of(server, "detect").instance_group
    assert (group.count, group.kind) == (1, ModelInstanceGroup.KIND_CPU)


def test_profile_is_served(toy_repositories: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLCLIP_ORT_THREADS", raising=False)
    profile = profile_of(
        tmp_path / "tuned",
        decode="instance_group [ { count: 3 } ]",
        fit=parameter("intra_op_thread_count", 1),
        detect=parameter("intra_op_thread_count", 6)
        + "dynamic_batching { preferred_batch_size: 4 max_queue_delay_microseconds: 1 }",
        whole_image="max_batch_size: 16",
    )
    with Server.start(toy_repositories, profile=profile) as server:
        found = ask_grpc(server.grpc_url, "product_image", IMAGE=[PHOTO, b""], PRODUCT_TYPE=[b"mug", b"mug"])
        assert found["STATUS"].tolist() == [[0], [2]]
        assert list(config_of(server, "detect").dynamic_batching.preferred_batch_size) == [4]
        assert config_of(server, "whole_image").max_batch_size == 16
        stubs = find_stubs(server.shm_prefix)
        assert sum(stub.model == "decode" for stub in stubs) == 3
        tasks = {stub.model: len(list(Path(f"/proc/{stub.pid}/task").iterdir())) for stub in stubs}
        assert tasks["detect"] - tasks["fit"] == 5
        assert "observe" not in tasks


def test_observe_counts_in_parallel_with_encode_image(toy_repositories: list[Path], tmp_path: Path) -> None:
    """The steps of NVIDIA's container, on the embedded server: crop counts nothing, and each image is counted once."""
    steps = {name: (PROFILES / CONTAINER / f"{name}.pbtxt").read_text() for name in ("product_image", "ground")}
    profile = profile_of(tmp_path / "observing", crop=parameter("count_grounding", "no"), **steps)
    images, types = [PHOTO, b"", PHOTO], [b"mug", b"mug", b""]
    with Server.start(toy_repositories, profile=profile) as server:
        for pipeline in ("product_image", "ground"):
            found = ask_grpc(server.grpc_url, pipeline, IMAGE=images, PRODUCT_TYPE=types)
            assert found["STATUS"].tolist() == [[0], [2], [1]]
        # The server's own questions at the start count as grounded.
        until(lambda: [count_images(server)[status] for status in ("not_an_image", "whole_image")] == [2, 2])


def count_images(server: Server) -> dict[str, float]:
    metrics = request((server.host, server.ports.metrics), "GET", "/metrics").decode()
    samples = parse_metrics(metrics, "vlclip_grounding_images_total")
    return {sample.labels["status"]: sample.value for sample in samples}


def test_graphs_for_a_gpu_run_on_cuda_or_the_message_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert providers_of("CPU", "0") == ["CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(RuntimeError, match=r"KIND_GPU.*pip install onnxruntime-gpu"):
        providers_of("GPU", "1")
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    (provider,) = providers_of("GPU", "1")
    assert provider[0] == "CUDAExecutionProvider"  # tests/serving/test_gpu.py has the options


def test_threads_of_the_environment_override_those_of_a_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLCLIP_ORT_THREADS", raising=False)
    assert threads_of({"intra_op_thread_count": "3"}) == 3
    monkeypatch.setenv("VLCLIP_ORT_THREADS", "7")
    assert threads_of({"intra_op_thread_count": "3"}) == threads_of({}) == 7


def test_written_repository_is_complete(tmp_path: Path) -> None:
    models = toys.build(MODELS, tmp_path / "models")
    toys.place_version(models, 1)
    out = tmp_path / "out"
    written = write_repository([models, ENSEMBLES], EMBEDDED_CPU, out)
    assert set(written) == {*LEAVES, *PIPELINES} - {"observe"}
    models.rename(tmp_path / "away")
    assert not any(path.is_symlink() for path in out.rglob("*"))
    with Server.start([out]) as server:
        assert ask_grpc(server.grpc_url, "product_image", IMAGE=[PHOTO], PRODUCT_TYPE=[b"mug"])["STATUS"] == [[0]]


def test_written_repository_has_the_profile(tmp_path: Path) -> None:
    models = toys.build(MODELS, tmp_path / "models")
    toys.place_version(models, 2)
    out = tmp_path / "out"
    assert set(write_repository([models, ENSEMBLES], "ngc-onnxruntime-cuda", out)) == {*LEAVES, *PIPELINES}
    detect, pipeline = (
        text_format.Parse((out / name / "config.pbtxt").read_text(), ModelConfig())
        for name in ("detect", "product_image")
    )
    assert detect.backend == "onnxruntime"
    assert list(detect.version_policy.specific.versions) == [2]
    assert pipeline.ensemble_scheduling.max_inflight_requests == 128
    assert {step.model_version for step in pipeline.ensemble_scheduling.step} == {2, -1}
    assert (out / "detect" / "2" / "model.onnx").is_file()
    with pytest.raises(SetupError, match="out is not empty"):
        write_repository([models, ENSEMBLES], "ngc-onnxruntime-cuda", out)
    with pytest.raises(SetupError, match=r"ngc-tensorrt serves \w+ from model.plan, and .* has model.onnx"):
        write_repository([models, ENSEMBLES], "ngc-tensorrt", tmp_path / "plans")
