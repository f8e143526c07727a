"""Checks that the embedded server has what a profile with models on a GPU needs."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
from collections.abc import Iterable

from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from serving.errors import SetupError

SMALLEST_POOL, LARGEST_POOL = 2 << 30, 16 << 30
"""Limits of the memory for tensors between models, in bytes on each GPU, which is an eighth of the GPU's memory. With
a full pool a hop costs 17 ms, and copies fail. Admission lets two seconds of work wait: at 1,300 photos a second these
are 2,600 canvases of 1.8 MB, and their crops."""
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
    gpus = gpu_memories()
    decoders = {config.parameters["decoder"].string_value for config in on_gpu if "decoder" in config.parameters}
    needs = {
        "an NVIDIA GPU with its driver (`nvidia-smi` shows both)": bool(gpus),
        "onnxruntime-gpu, without onnxruntime": has_cuda_onnxruntime(),
        "PyTorch": is_installed("torch"),
        "nvImageCodec": "nvimgcodec" not in decoders or is_installed("nvidia.nvimgcodec"),
    }
    if missing := [name for name, is_there in needs.items() if not is_there]:
        raise SetupError(
            f"the profile runs {', '.join(config.name for config in on_gpu)} on a GPU, and this is missing: "
            f"{'; '.join(missing)}\n    {INSTALL}\nor use --profile embedded-cpu"
        )
    return [f"--cuda-memory-pool-byte-size={gpu}:{pool_bytes(memory)}" for gpu, memory in enumerate(gpus)]


def pool_bytes(memory: int) -> int:
    """Bytes of the pool on a GPU with this memory."""
    return min(max(memory // 8, SMALLEST_POOL), LARGEST_POOL)


def gpu_memories() -> list[int]:
    """The memory in bytes of each GPU that the driver shows; none without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count, device, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    memories = []
    for number in range(count.value):
        driver.cuDeviceGet(ctypes.byref(device), number)
        driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        memories.append(memory.value)
    return memories


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
