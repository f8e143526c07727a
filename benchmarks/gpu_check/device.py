"""The chain from JPEG to embedding in one process, on the device, with the server's own decoder and ladders."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.photos import Sample, find_photos
from export.in_process import ANSWER, CORES, GRAPHS, InProcess
from serving.backends.onnxruntime.ladder import Ladder, Plan, open_ladder
from serving.repository.manifest import read_served
from serving.repository.specs import LEAVES

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Place:
    """What a step measures, and where."""

    device: str
    """``cuda`` or ``cpu``"""
    repository: Path
    photos: Path
    out: Path

    @property
    def is_gpu(self) -> bool:
        return self.device == "cuda"

    @property
    def samples(self) -> list[Sample]:
        return [(photo.path.read_bytes(), photo.product_type) for photo in find_photos(self.photos)]


def reference_of(place: Place) -> dict[str, np.ndarray]:
    """All tensors of the graphs for the photos, computed on the CPU. They are kept in a file for the later steps."""
    file = place.out / "reference.npz"
    if not file.is_file():
        model, samples, parts = InProcess(place.repository), place.samples, []
        for start in range(0, len(samples), 8):
            files, types = zip(*samples[start : start + 8], strict=True)
            # Canvases of one size, so that the parts can be joined.
            parts.append(model.run(padded(model.decode(files)), types))
        joined: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        np.savez(file, **joined)
    with np.load(file) as arrays:
        return dict(arrays)


def padded(decoded: Mapping[str, np.ndarray], side: int = 768) -> dict[str, np.ndarray]:
    """The same images on canvases of ``side`` pixels."""
    canvas = decoded["CANVAS"]
    more = side - canvas.shape[1]
    return {**decoded, "CANVAS": np.pad(canvas, ((0, 0), (0, more), (0, more), (0, 0)))}


class OnDevice(InProcess):
    """``product_image`` without a server. Tensors stay on the device between the graphs.

    Args:
        rungs: the batch sizes to open, as in the profile.
        warnings: gets a sentence for each rung that cannot become a CUDA graph.
    """

    def __init__(self, place: Place, rungs: str, warnings: list[str], graphs: Sequence[str] = GRAPHS) -> None:
        super().__init__(place.repository, graphs=())
        served = read_served(place.repository)
        version, kind = str(served.version if served else 1), "GPU" if place.is_gpu else "CPU"
        self.torch_device = torch.device(place.device)
        self.gpu: Any = None
        if place.is_gpu:
            from serving.decode.gpu import GpuDecoder

            self.gpu = GpuDecoder.open(0)
        self.ladders: dict[str, Ladder] = {}
        for graph in graphs:
            path = place.repository / graph / version / "model.onnx"
            warn = lambda message, graph=graph: warnings.append(f"{graph} at {message}")  # noqa: E731
            self.ladders[graph] = open_ladder(Plan.parse(rungs), path, CORES, kind, "0", warn)

    def decode_on_device(self, files: Sequence[bytes]) -> dict[str, Any]:
        """CANVAS on the device, SIZE and DECODED of B files."""
        if self.gpu is None:
            return self.decode(files)
        images = self.gpu.decode(files, self._limits, self._threads)
        return {
            "CANVAS": self.gpu.stack(images, self._limits.canvas_for(image.size for image in images)),
            "SIZE": np.array([image.size for image in images], np.int32),
            "DECODED": np.array([[image.status] for image in images], np.int32),
        }

    def embed(self, files: Sequence[bytes], product_types: Sequence[str]) -> dict[str, np.ndarray]:
        tensors: dict[str, Any] = self.run(self.decode_on_device(files), product_types)
        for name, ladder in self.ladders.items():
            inputs = {one: self.to_device(tensors[one]) for one in ladder.signature}
            tensors.update(self.step(name, inputs))
        return {name: self.to_host(tensors[name]) for name in ANSWER if name in tensors}

    def step(self, graph: str, inputs: Tensors) -> dict[str, torch.Tensor]:
        names = [tensor.name for tensor in LEAVES[graph].outputs]
        return dict(zip(names, self.ladders[graph].run(names, [inputs]), strict=True))

    def to_device(self, value: Any) -> torch.Tensor:
        return torch.as_tensor(value, device=self.torch_device)

    @staticmethod
    def to_host(value: Any) -> np.ndarray:
        return value.cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)

    def wait(self) -> None:
        if self.torch_device.type == "cuda":
            torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], seconds: float, wait: Callable[[], None] = lambda: None) -> list[float]:
    """Durations of ``work``, repeated for ``seconds`` after one run to warm up."""
    work()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while not taken or time.perf_counter() < end:
        wait()
        begin = time.perf_counter()
        work()
        wait()
        taken.append(time.perf_counter() - begin)
    return taken
