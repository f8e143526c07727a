"""Runs a graph at a few batch sizes only, the rungs of a ladder, with a session for each.

On CUDA, ONNX Runtime plans its convolutions again whenever the shape of a batch changes, which takes 0.2 s or more. So
each rung has a session whose dimensions are all fixed, with inputs and outputs in buffers that stay in place, as CUDA
graphs require. A batch runs on the rungs that together take the least time: 9 rows on the rungs 8 and 1 rather than on
32. The unused rows of a buffer hold values of an earlier batch, which is harmless because rows do not influence each
other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
import torch

from serving.backends.onnxruntime.sessions import open_briefly, open_session, providers_of, signature_of

Tensors = Mapping[str, torch.Tensor]
Sizes = tuple[tuple[str, int], ...]
"""The free dimensions of a graph without the batch, sorted by name, with a size for each."""

WARM_UP_RUNS = 3
"""The first plans, the second is captured as a CUDA graph, the third replays it."""
LAUNCH_ROWS = 3
"""The fixed costs of a run, as the number of rows that take as long. On an H100, one photo took 3.4 ms and each photo
of a full batch 0.8 ms."""
MOST_SIZES = 4
"""Sizes that have rungs. Each rung holds the weights once more."""


@dataclass(frozen=True)
class Plan:
    """The ladder of a config: rising batch sizes, and the sizes to open them for when the model loads."""

    rungs: tuple[int, ...]
    sizes: tuple[Sizes, ...] = ()

    @classmethod
    def parse(cls, rungs: str, sizes: str = "") -> Plan:
        """Read texts such as "1 8 32" and "S=448, S=768"; with several dimensions "L=4 S=448, L=4 S=768".

        Raises ValueError for other texts.
        """
        batches = tuple(int(rung) for rung in rungs.split())
        if not batches or list(batches) != sorted(set(batches)) or batches[0] < 1:
            raise ValueError(f"batch_ladder must be rising batch sizes such as 1 8 32, not {rungs!r}")
        entries = [entry for entry in sizes.split(",") if entry.strip()]
        if not all(re.fullmatch(r"(\s*\w+=\d+)+\s*", entry) for entry in entries):
            raise ValueError(f"ladder_sizes must be like S=448, S=768, not {sizes!r}")
        pairs = ([pair.split("=") for pair in entry.split()] for entry in entries)
        return cls(batches, tuple(tuple(sorted((name, int(size)) for name, size in entry)) for entry in pairs))


def runs_of(rows: int, rungs: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """Start, end and rung of each run over ``rows``: the largest rung while it is full, then the cheapest."""
    start = 0
    full, rest = divmod(rows, rungs[-1])
    for rung in (*rungs[-1:] * full, *cheapest_runs(rungs)[rest]):
        yield start, min(start + rung, rows), rung
        start += rung


@lru_cache
def cheapest_runs(rungs: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The rungs of the runs that hold 0, 1, 2, … rows at the lowest cost, up to the largest rung."""
    best: list[tuple[int, tuple[int, ...]]] = [(0, ())]  # the cost in rows, and the rungs, the largest first
    for rows in range(1, rungs[-1] + 1):
        choices = [(best[max(rows - rung, 0)], rung) for rung in rungs]
        best.append(min((cost + rung + LAUNCH_ROWS, (rung, *others)) for (cost, others), rung in choices))
    return [tuple(sorted(chosen, reverse=True)) for _, chosen in best]


def sizes_of(signature: Mapping[str, Sequence[int | str | None]], shapes: Mapping[str, Sequence[int]]) -> Sizes | None:
    """The sizes of a graph's free dimensions, by their names in ``signature``, for tensors of these shapes.

    None where the shapes do not fit the signature, or a free dimension has no name.
    """
    sizes: dict[str, int] = {}
    for name, dimensions in signature.items():
        if len(dimensions) != len(shapes[name]):
            return None
        for dimension, size in zip(dimensions[1:], shapes[name][1:], strict=True):
            known = dimension if isinstance(dimension, int) else sizes.setdefault(str(dimension or ""), size)
            if known != size:
                return None
    return None if "" in sizes else tuple(sorted(sizes.items()))


def copy_rows(target: torch.Tensor, pieces: Sequence[torch.Tensor], start: int) -> None:
    """Fill ``target`` with rows of all pieces joined in order, from row ``start`` on, from any device."""
    position = -start
    for piece in pieces:
        begin, end = max(position, 0), min(position + len(piece), len(target))
        if begin < end:
            target[begin:end].copy_(piece[begin - position : end - position])
        position += len(piece)


class Rung:
    """A session with every dimension fixed, bound to buffers on ``device``."""

    def __init__(self, session: ort.InferenceSession, device: torch.device):
        self.session = session
        self.binding = session.io_binding()
        self.inputs = {
            tensor.name: self._bind(self.binding.bind_input, tensor, device) for tensor in session.get_inputs()
        }
        self.outputs = {
            tensor.name: self._bind(self.binding.bind_output, tensor, device) for tensor in session.get_outputs()
        }
        for _ in range(WARM_UP_RUNS):
            self.run()

    @staticmethod
    def _bind(bind: Callable[..., None], tensor: ort.NodeArg, device: torch.device) -> torch.Tensor:
        dtype = dtype_of(tensor)
        # ONNX Runtime cannot infer the shape of every output. Such a graph cannot run on a ladder.
        if not all(isinstance(size, int) for size in tensor.shape):
            raise ValueError(f"{tensor.name} has no fixed shape even for a fixed batch: {tensor.shape}")
        buffer = torch.zeros(tensor.shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype, device=device)
        bind(tensor.name, device.type, device.index or 0, dtype, tensor.shape, buffer.data_ptr())
        return buffer

    def run(self) -> None:
        if self.session.get_providers()[0] == "CUDAExecutionProvider":
            # The session's stream does not wait for PyTorch's copies, which are on another one.
            torch.cuda.synchronize()
        self.session.run_with_iobinding(self.binding)
        self.binding.synchronize_outputs()


class OpenSession(Protocol):
    def __call__(self, sizes: Mapping[str, int], *, capture: bool) -> ort.InferenceSession:
        """Open the graph with dimensions fixed, by their names. ``capture``: its runs become a CUDA graph."""
        ...


class Ladder:
    """The rungs of one graph. Those of the plan's sizes are opened at once, others when they are first needed.

    Args:
        signature: the dimensions of the graph's inputs, numbers or names, the batch first.
        open_session: opens the graph.
        captures: whether rungs become CUDA graphs. A rung that cannot become one launches its kernels at each run.
        warn: gets a sentence about each such rung.
    """

    def __init__(
        self,
        plan: Plan,
        signature: Mapping[str, Sequence[int | str | None]],
        open_session: OpenSession,
        device: torch.device,
        *,
        captures: bool = False,
        warn: Callable[[str], None] = print,
    ):
        self.plan = plan
        self._captures = captures
        self._warn = warn
        self.signature = signature
        self.device = device
        self._open_session = open_session
        self._rungs: dict[tuple[Sizes, int], Rung] = {}
        is_fixed = all(isinstance(size, int) for dimensions in signature.values() for size in dimensions[1:])
        for sizes in plan.sizes or ([()] if is_fixed else []):
            for rung in plan.rungs:
                self._rung(sizes, rung)

    def climbs(self, shapes: Mapping[str, Sequence[int]]) -> bool:
        """Whether tensors of these shapes can run here: their sizes have rungs, or may get some."""
        sizes = sizes_of(self.signature, shapes)
        known = {sizes for sizes, _ in self._rungs}
        return sizes is not None and (sizes in known or len(known) < MOST_SIZES)

    def run(self, wanted: Sequence[str], requests: Sequence[Tensors]) -> list[torch.Tensor]:
        """The outputs ``wanted`` for the rows of all requests, in order, as new tensors on the device.

        The first dimension of a request's tensors is its rows; the other dimensions are the same for all requests.
        """
        sizes = sizes_of(self.signature, {name: tensor.shape for name, tensor in requests[0].items()})
        rows = sum(len(tensors[next(iter(self.signature))]) for tensors in requests)
        results: list[torch.Tensor] = []
        for start, end, size in runs_of(rows, self.plan.rungs):
            rung = self._rung(sizes or (), size)
            for name, buffer in rung.inputs.items():
                copy_rows(buffer[: end - start], [tensors[name] for tensors in requests], start)
            rung.run()
            results = results or [
                torch.empty((rows, *rung.outputs[name].shape[1:]), dtype=rung.outputs[name].dtype, device=self.device)
                for name in wanted
            ]
            for result, name in zip(results, wanted, strict=True):
                result[start:end] = rung.outputs[name][: end - start]
        return results

    def _rung(self, sizes: Sizes, size: int) -> Rung:
        if (sizes, size) not in self._rungs:
            batch = next(iter(self.signature.values()))[0]
            self._rungs[sizes, size] = self._build({str(batch): size, **dict(sizes)})
        return self._rungs[sizes, size]

    def _build(self, sizes: Mapping[str, int]) -> Rung:
        if self._captures:
            try:
                # Where a part of the graph needs the CPU, opening fails; what cannot be captured fails at the second
                # run of the warm-up.
                return Rung(self._open_session(sizes, capture=True), self.device)
            except Exception as error:
                self._warn(f"{dict(sizes)} runs without a CUDA graph: {error}")
        return Rung(self._open_session(sizes, capture=False), self.device)


def open_ladder(
    plan: Plan, path: Path, threads: int, kind: str, device: str, warn: Callable[[str], None] = print
) -> Ladder:
    """The ladder of a graph on a ``kind`` of GPU, with CUDA graphs, or CPU. ``device`` is the number of the GPU."""
    target = torch.device("cuda", int(device)) if kind == "GPU" else torch.device("cpu")
    if kind == "GPU":
        torch.cuda.set_device(target)

    def open_rung(sizes: Mapping[str, int], *, capture: bool) -> ort.InferenceSession:
        return open_session(path, threads, providers_of(kind, device, capture), sizes)

    signature = signature_of(open_briefly(path))
    return Ladder(plan, signature, open_rung, target, captures=kind == "GPU", warn=warn)


def dtype_of(tensor: ort.NodeArg) -> np.dtype[Any]:
    """The dtype of a graph's input or output, whose type is a text such as "tensor(float)"."""
    name = str(tensor.type).removeprefix("tensor(").removesuffix(")")
    return np.dtype({"float": "float32", "double": "float64"}.get(name, name))
