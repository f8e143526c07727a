"""Names what a machine has: the driver, CUDA, cuDNN, the libraries, and the Tritons."""

from __future__ import annotations

import ctypes
import importlib.metadata
import shutil
import subprocess
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from benchmarks.machine import machine, versions
from serving.server.gpu import gpu_memories

PACKAGES = ("torch", "onnxruntime-gpu", "nvidia-nvimgcodec-cu13", "nvidia-cudnn-cu13", "nvidia-cublas", "tensorrt")
BACKENDS = ("onnxruntime", "tensorrt")


def describe() -> dict[str, Any]:
    """What is here; "none" for what is missing."""
    cudnn: Any = torch.backends.cudnn
    return {
        **machine(),
        **versions(),
        **{name: version_of(name) for name in PACKAGES},
        "gpu": ask("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"),
        "memory of each GPU, GiB": [round(memory / 2**30) for memory in gpu_memories()],
        "CUDA of the driver": cuda_of_driver(),
        "CUDA of PyTorch": torch.version.cuda or "none",
        "cuDNN": str(cudnn.version() or "none"),
        "ONNX Runtime on": onnxruntime.get_available_providers(),
        "tritonserver": shutil.which("tritonserver") or "none",
        "its backends": backends_of_triton(),
    }


def version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def ask(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "none"


def cuda_of_driver() -> str:
    try:
        driver, version = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
    except OSError:
        return "none"
    driver.cuDriverGetVersion(ctypes.byref(version))
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def backends_of_triton() -> list[str]:
    """The backends of a full installation, such as NVIDIA's container, that a profile of ours needs."""
    binary = shutil.which("tritonserver")
    folder = Path(binary).resolve().parents[1] / "backends" if binary else Path("/nowhere")
    return [name for name in BACKENDS if (folder / name).is_dir()]


def gpu_bytes() -> int:
    """Memory in use on the first GPU, by all processes; 0 without a GPU."""
    if not torch.cuda.is_available():
        return 0
    free, total = torch.cuda.mem_get_info(0)
    return int(total - free)
