"""Checks that the embedded server has what a profile with models on a GPU needs."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
from collections.abc import Iterable

from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from serving.errors import SetupError

POOL_BYTES = 2 << 30
"""Memory on each GPU for tensors between models. Without this pool a hop costs 17 ms and copies fail. The largest
canvases of a full batch take 113 MB, its crops 38 MB, and several batches are in flight at the same time."""
INSTALL = "pip uninstall onnxruntime; pip install --editable './serving[gpu]'"
"""Both packages of ONNX Runtime install into the same folder, so the CPU one must be removed first."""


def gpu_options(configs: Iterable[ModelConfig]) -> list[str]:
    """Options for tritonserver; none if no model is on a GPU.

    Raises SetupError with everything that is missing.
    """
    on_gpu = [
        config
        for config in configs
        if any(group.kind == ModelInstanceGroup.KIND_GPU for group in config.instance_group)
    ]
    if not on_gpu:
        return []
    gpus = count_gpus()
    decoders = {config.parameters["decoder"].string_value for config in on_gpu if "decoder" in config.parameters}
    needs = {
        "an NVIDIA GPU with its driver (`nvidia-smi` shows both)": gpus > 0,
        "onnxruntime-gpu, without onnxruntime": has_cuda_onnxruntime(),
        "PyTorch": is_installed("torch"),
        "nvImageCodec": "nvimgcodec" not in decoders or is_installed("nvidia.nvimgcodec"),
    }
    if missing := [name for name, is_there in needs.items() if not is_there]:
        raise SetupError(
            f"the profile runs {', '.join(config.name for config in on_gpu)} on a GPU, and this is missing: "
            f"{'; '.join(missing)}\n    {INSTALL}\nor use --profile embedded-cpu"
        )
    return [f"--cuda-memory-pool-byte-size={gpu}:{POOL_BYTES}" for gpu in range(gpus)]


def count_gpus() -> int:
    """The number of GPUs that the driver shows; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    is_fine = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if is_fine else 0


def has_cuda_onnxruntime() -> bool:
    """Whether ONNX Runtime is installed for CUDA, and the CPU package is not in the same folder."""
    if any(importlib.metadata.distributions(name="onnxruntime")) or not is_installed("onnxruntime"):
        return False
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
