"""What a profile for GPUs needs, and the message that names what is missing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from serving import cuda
from serving.backends.onnxruntime import model, sessions
from serving.errors import SetupError
from serving.paths import REPOSITORIES
from serving.repository.profiles import read_config
from serving.repository.specs import CANVASES
from serving.server import gpu
from serving.server.gpu import gpu_memories, gpu_options, pool_bytes
from serving.server.server import Server
from tests import toys
from tests.serving.test_leaves import args_of, request

CONFIGS = [
    read_config(path.parent, "embedded-gpu") for folder in REPOSITORIES for path in folder.glob("*/config.pbtxt")
]
GRAPHS = ["detect", "crop", "fit", "encode_image", "encode_text", "encode_prompt"]
without_gpu = pytest.mark.skipif(gpu_memories() != [], reason="there is a GPU")


@without_gpu
def test_server_names_what_is_missing_before_it_starts_triton(toy_repositories: list[Path]) -> None:
    wanted = r"(?s)detect.* on a GPU, and this is missing: an NVIDIA GPU.*onnxruntime-gpu.*pip install .*embedded-cpu"
    with pytest.raises(SetupError, match=wanted):
        Server.start(toy_repositories, profile="embedded-gpu")


@pytest.mark.parametrize(
    ("gpus", "with_cuda", "installed", "missing"),
    [
        pytest.param(0, True, {"torch", "nvidia.nvimgcodec"}, "an NVIDIA GPU", id="no GPU"),
        pytest.param(1, False, {"torch", "nvidia.nvimgcodec"}, "missing: onnxruntime-gpu, without", id="no CUDA"),
        pytest.param(1, True, {"nvidia.nvimgcodec"}, "missing: PyTorch", id="no PyTorch"),
        pytest.param(1, True, {"torch"}, "missing: nvImageCodec", id="no decoder"),
    ],
)
def test_each_thing_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, gpus: int, with_cuda: bool, installed: set[str], missing: str
) -> None:
    pretend(monkeypatch, gpus, with_cuda, installed)
    with pytest.raises(SetupError, match=missing):
        gpu_options(CONFIGS)


def test_every_gpu_gets_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 2, True, {"torch", "nvidia.nvimgcodec"})
    assert gpu_options(CONFIGS) == [f"--cuda-memory-pool-byte-size={i}:{10 << 30}" for i in range(2)]


@pytest.mark.parametrize(("memory", "pool"), [(8, 2), (24, 3), (80, 10), (141, 16)])
def test_a_pool_is_an_eighth_of_the_memory_within_limits(memory: int, pool: int) -> None:
    assert pool_bytes(memory << 30) == pool << 30


def test_two_seconds_of_work_fit_into_the_pool_of_a_large_gpu() -> None:
    """Canvases and crops of 1,300 photos a second, for as long as admission lets them wait."""
    [first] = [config for config in CONFIGS if config.name == "tokenize_prompt"]
    wait = float(first.parameters["max_wait_seconds"].string_value)
    canvas, crop = max(CANVASES) ** 2 * 3, 3 * 224 * 224 * 4
    assert 1300 * wait * (canvas + crop) < pool_bytes(80 << 30)


def test_cuda_computes_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 is ONNX Runtime's default, and changes grey levels."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [sessions.CUDA])
    for capture in (False, True):
        [provider] = sessions.providers_of("GPU", "1", capture)
        assert isinstance(provider, tuple)
        name, options = provider
        assert (name, options["device_id"], options["use_tf32"]) == (sessions.CUDA, "1", "0")
        assert options.get("enable_cuda_graph") == ("1" if capture else None)
    for leaf in GRAPHS:
        config = read_config(REPOSITORIES[0] / leaf, "ngc-onnxruntime-cuda")
        [accelerator] = config.optimization.execution_accelerators.gpu_execution_accelerator
        assert (accelerator.name, dict(accelerator.parameters)) == ("cuda", {"use_tf32": "0"})
        # Triton's backend overwrites what an accelerator says about the search with its own default, but not this.
        assert config.parameters["cudnn_conv_algo_search"].string_value == "1"


class Lost(SystemExit):
    """What ``os._exit`` does here."""


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_process_ends_only_if_it_has_lost_its_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    """A fake session and a fake probe say what CUDA would."""

    def leave(code: int) -> None:
        raise Lost(code)

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")

    monkeypatch.setattr(os, "_exit", leave)
    (tmp_path / "1").mkdir()
    graph = toys.to_onnx("sum", "(float[B,2] X) => (float[B,2] Y) {\nY = Add(X, X)\n}")
    onnx.save(graph, tmp_path / "1" / "model.onnx")
    leaf = model.TritonPythonModel()
    leaf.initialize(args_of(tmp_path))
    monkeypatch.setattr(leaf.graph, "run", fail)
    asked = [request("Y", X=np.ones((1, 2), np.float32))]
    leaf.probe = fail if is_lost else lambda: None
    if is_lost:
        with pytest.raises(Lost, match=str(cuda.LOST)):
            leaf.execute(asked)
    else:
        [answer] = leaf.execute(asked)
        assert answer.has_error()


@pytest.mark.parametrize("leaf", GRAPHS)
def test_the_ladder_goes_up_to_a_full_batch_and_knows_the_canvases(leaf: str) -> None:
    by_name = {config.name: config for config in CONFIGS}
    texts = {name: value.string_value for name, value in by_name[leaf].parameters.items()}
    assert int(texts["batch_ladder"].split()[-1]) == by_name[leaf].max_batch_size
    assert texts["FORCE_CPU_ONLY_INPUT_TENSORS"] == "no"
    wanted = ", ".join(f"S={side}" for side in CANVASES)
    assert texts.get("ladder_sizes", wanted) == wanted
    assert ("ladder_sizes" in texts) == (leaf in ("detect", "crop", "fit"))


def pretend(monkeypatch: pytest.MonkeyPatch, gpus: int, with_cuda: bool, installed: set[str]) -> None:
    """Make the checks see a machine with these."""
    monkeypatch.setattr(gpu, "gpu_memories", lambda: [80 << 30] * gpus)
    monkeypatch.setattr(gpu, "has_cuda_onnxruntime", lambda: with_cuda)
    monkeypatch.setattr(gpu, "is_installed", lambda module: module in installed)
