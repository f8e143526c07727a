"""The machine and the versions that a measurement was taken with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import psutil
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

PACKAGES = (
    "vlclip",
    "onnxruntime",
    "opencv-python-headless",
    "tritonclient",
    "grpcio",
    "locust",
    "fastapi",
    "uvicorn",
    "litserve",
    "numpy",
)


def machine() -> dict[str, str]:
    """Of the one that this process runs on: CPU, cores, memory, system."""
    cores = len(os.sched_getaffinity(0))
    return {
        "cpu": _cpu(),
        "cores": f"{cores}" if cores == os.cpu_count() else f"{cores} of {os.cpu_count()}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{_system()}, Linux {platform.release()}",
    }


def versions(grpc_url: str | None = None) -> dict[str, str]:
    """Of Python, of our packages and of the server at ``grpc_url``, which may be another machine's."""
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
