"""Opens sessions of ONNX Runtime, on the CPU and on CUDA. Nothing here needs Triton: benchmarks open the same ones."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import onnxruntime as ort

Provider = str | tuple[str, dict[str, str]]
Signature = Mapping[str, Sequence[int | str | None]]
"""The dimensions of each input, numbers or names, the batch first."""

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


@lru_cache
def load_cuda() -> None:
    """Load CUDA and cuDNN as pip installed them.

    PyTorch comes first, because it brings its own: until 1.27, ONNX Runtime looked in the folders of CUDA 12 only.
    """
    import torch  # noqa: F401

    ort.preload_dlls()


def providers_of(kind: str, device: str, capture: bool = False) -> list[Provider]:
    """ONNX Runtime's providers for an instance: on a GPU, CUDA with the cheapest search for a new batch shape.

    With ``capture``, a session's run is captured as a CUDA graph and replayed; it may then see one shape only.
    """
    if kind != "GPU":
        return [CPU]
    if CUDA not in ort.get_available_providers():
        raise RuntimeError("KIND_GPU, and the ONNX Runtime here has no CUDA: pip install onnxruntime-gpu")
    load_cuda()
    options = {
        "device_id": device,
        "cudnn_conv_algo_search": "HEURISTIC",
        # Its 10 bits of mantissa, the default, would change the grey levels of crops.
        "use_tf32": "0",
        # Sessions share the GPU. By default each would round up what it takes to a power of two.
        "arena_extend_strategy": "kSameAsRequested",
    }
    return [(CUDA, options | ({"enable_cuda_graph": "1"} if capture else {}))]


def open_session(
    path: Path, threads: int, providers: Sequence[Provider], sizes: Mapping[str, int] | None = None
) -> ort.InferenceSession:
    """Open a graph; ``sizes`` fixes dimensions by their names. Raises RuntimeError if the provider cannot be loaded."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # The leaves share the cores: a thread that spins between two runs takes time from the next leaf.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name, size in (sizes or {}).items():
        options.add_free_dimension_override_by_name(name, size)
    # With FP16 graphs, this optimizer makes ONNX Runtime 1.32 crash on the CPU, at a MatMul behind a Transpose.
    disabled = ["NchwcTransformer"] if is_fp16(path) else []
    # Without enable_fallback=0, ONNX Runtime silently continues with other providers.
    session = ort.InferenceSession(path, options, providers=providers, disabled_optimizers=disabled, enable_fallback=0)
    wanted = providers[0][0] if isinstance(providers[0], tuple) else providers[0]
    if session.get_providers()[0] != wanted:
        raise RuntimeError(f"ONNX Runtime has {wanted} and cannot load it: CUDA or cuDNN is missing or does not fit")
    return session


def signature_of(session: ort.InferenceSession) -> Signature:
    return {tensor.name: tensor.shape for tensor in session.get_inputs()}


def open_briefly(path: Path) -> ort.InferenceSession:
    """A session that is opened quickly and is only asked for its inputs."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=[CPU])


def is_fp16(path: Path) -> bool:
    """Whether the exporter's metadata says so."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.rfind(b'"precision": "fp16"') >= 0
