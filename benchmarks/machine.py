"""The machine and the versions of a measurement, and what its processes use."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import psutil
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

PACKAGES = (
    *("vlclip", "onnxruntime", "opencv-python-headless", "numpy", "tritonclient", "grpcio"),
    *("locust", "fastapi", "uvicorn", "litserve"),
)


def machine() -> dict[str, str]:
    """CPU, cores, memory and system of this machine."""
    cores = len(os.sched_getaffinity(0))
    return {
        "cpu": _cpu(),
        "cores": f"{cores}" if cores == os.cpu_count() else f"{cores} of {os.cpu_count()}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{_system()}, Linux {platform.release()}",
    }


def versions(grpc_url: str | None = None) -> dict[str, str]:
    """The versions of Python, of our packages and of the server at ``grpc_url``."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if grpc_url:
        try:
            with triton.InferenceServerClient(grpc_url) as client:
                found["triton"] = client.get_server_metadata(client_timeout=5).version
        except InferenceServerException:
            found["triton"] = "unknown"
    return found


def processes_of(pid: int) -> list[psutil.Process]:
    """A process and its children. This process stands alone, because its children are the servers that it started."""
    root = psutil.Process(pid)
    return [root] if pid == os.getpid() else [root, *root.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """CPU time that a process and its children have used so far."""
    return float(sum(sum(process.cpu_times()[:2]) for process in processes_of(pid)))


def memory_bytes(pid: int) -> int:
    """Memory that a process and its children do not share with other processes."""
    return sum(process.memory_full_info().uss for process in processes_of(pid))


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return "unknown"
