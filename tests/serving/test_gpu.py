"""What a profile for GPUs needs, and the message that names what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import SetupError
from serving.paths import REPOSITORIES
from serving.repository.profiles import read_config
from serving.repository.specs import CANVASES
from serving.server import gpu
from serving.server.gpu import POOL_BYTES, count_gpus, gpu_options
from serving.server.server import Server

CONFIGS = [
    read_config(path.parent, "embedded-gpu") for folder in REPOSITORIES for path in folder.glob("*/config.pbtxt")
]
without_gpu = pytest.mark.skipif(count_gpus() > 0, reason="there is a GPU")


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
    assert gpu_options(CONFIGS) == [f"--cuda-memory-pool-byte-size={i}:{POOL_BYTES}" for i in range(2)]


@pytest.mark.parametrize("model", ["detect", "crop", "fit", "encode_image", "encode_text", "encode_prompt"])
def test_the_ladder_goes_up_to_a_full_batch_and_knows_the_canvases(model: str) -> None:
    by_name = {config.name: config for config in CONFIGS}
    texts = {name: value.string_value for name, value in by_name[model].parameters.items()}
    assert int(texts["batch_ladder"].split()[-1]) == by_name[model].max_batch_size
    assert texts["FORCE_CPU_ONLY_INPUT_TENSORS"] == "no"
    wanted = ", ".join(f"S={side}" for side in CANVASES)
    assert texts.get("ladder_sizes", wanted) == wanted
    assert ("ladder_sizes" in texts) == (model in ("detect", "crop", "fit"))


def pretend(monkeypatch: pytest.MonkeyPatch, gpus: int, with_cuda: bool, installed: set[str]) -> None:
    """Make the checks see a machine with these."""
    monkeypatch.setattr(gpu, "count_gpus", lambda: gpus)
    monkeypatch.setattr(gpu, "has_cuda_onnxruntime", lambda: with_cuda)
    monkeypatch.setattr(gpu, "is_installed", lambda module: module in installed)
