"""A stand-in for Triton's onnxruntime backend: runs a model's ``model.onnx`` with the ONNX Runtime package.

The embedded server has it in ``<backend directory>/onnxruntime/model.py``, under the name of Triton's backend, so that
the configs are the same for both. Of a config it reads what Triton's backend reads:

    instance_group [ { kind: KIND_GPU } ]                                    run on CUDA
    parameters { key: "intra_op_thread_count" value: { string_value: "2" } } threads of the model; one per core without

and these parameters of its own:

    batch_ladder                   "1 8 32 64": run at these batch sizes only, see ``ladder``
    ladder_sizes                   "S=448, S=768": open the ladder for these sizes when the model loads
    FORCE_CPU_ONLY_INPUT_TENSORS   "no", of Triton's Python backend: inputs may stay on the GPU
    count_grounding                "yes": count SCORE and STATUS of each request, see ``serving.observe.grounding``

The environment variable VLCLIP_ORT_THREADS sets the number of threads for all models and overrides their configs.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

from serving.backends.onnxruntime.sessions import CPU, Provider, open_session, providers_of
from serving.cuda import end_if_lost, probe_of
from serving.leaf import fail, input_of, parameters_of
from serving.observe.grounding import GroundingCounter

if TYPE_CHECKING:
    import torch

    from serving.backends.onnxruntime.ladder import Ladder

Array = npt.NDArray[Any]
PART_BYTES = 1 << 20
"""Size of the inputs that a core gets at once, small enough for the intermediate tensors to stay in its cache."""
LIGHT_BYTES = 64 << 20
"""Size of the largest graph that is loaded twice."""


class TritonPythonModel:
    def initialize(self, args: Mapping[str, str]) -> None:
        self.path = Path(args["model_repository"], args["model_version"], "model.onnx")
        parameters = parameters_of(args)
        self.threads = threads_of(parameters)
        self.kind, self.device = args["model_instance_kind"], args["model_instance_device_id"]
        self.probe = probe_of(int(self.device)) if self.kind == "GPU" else None
        self.ladder: Ladder | None = None
        if "batch_ladder" in parameters:
            from serving.backends.onnxruntime.ladder import Plan, open_ladder  # imports PyTorch

            plan = Plan.parse(parameters["batch_ladder"], parameters.get("ladder_sizes", ""))
            self.ladder = open_ladder(plan, self.path, self.threads, self.kind, self.device, self.warn)
        self.input_names = list(self.ladder.signature) if self.ladder else self.graph.input_names
        self.counter = GroundingCounter() if parameters.get("count_grounding") == "yes" else None

    def warn(self, message: str) -> None:
        pb_utils.Logger.log_warn(f"{self.path.parents[1].name} at {message}")

    @cached_property
    def graph(self) -> Graph:
        """The graph for any shape. Beside a ladder few requests need it, and it would hold the weights once more."""
        return Graph(self.path, self.threads, providers_of(self.kind, self.device))

    def execute(self, requests: Sequence[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer every request, in order. Requests with the same shapes and wanted outputs run as one batch.

        If a batch fails, each of its requests runs alone, so that only those fail that cannot run.
        """
        try:
            return self.answer(requests)
        except Exception as error:
            end_if_lost(self.probe, error)
            raise

    def answer(self, requests: Sequence[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        inputs = [self.read(request) for request in requests]
        responses: dict[int, pb_utils.InferenceResponse] = {}
        batches = deque(alike(requests, inputs).items())
        while batches:
            (wanted, shapes), indices = batches.popleft()
            try:
                outputs = self.run(sorted(wanted), [inputs[i] for i in indices])
            except Exception as error:
                end_if_lost(self.probe, error)
                if len(indices) > 1:
                    batches.extend(((wanted, shapes), [i]) for i in indices)
                else:
                    responses[indices[0]] = fail(f"{type(error).__name__}: {error}")
                continue
            for i, tensors in zip(indices, outputs, strict=True):
                responses[i] = pb_utils.InferenceResponse([tensor_of(*item) for item in tensors.items()])
                if self.counter and "STATUS" in tensors:
                    self.counter.count(on_host(inputs[i]["SCORE"]), on_host(tensors["STATUS"]))
        return [responses[i] for i in range(len(requests))]

    def read(self, request: pb_utils.InferenceRequest) -> dict[str, Array | torch.Tensor]:
        tensors = {name: input_of(request, name) for name in self.input_names}
        as_array = self.ladder is None and all(tensor.is_cpu() for tensor in tensors.values())
        return {name: tensor.as_numpy() if as_array else shared(tensor) for name, tensor in tensors.items()}

    def run(
        self, wanted: Sequence[str], inputs: Sequence[Mapping[str, Array | torch.Tensor]]
    ) -> list[dict[str, Array | torch.Tensor]]:
        """Run the rows of several requests as one batch; returns the outputs of each request."""
        outputs: list[Array | torch.Tensor]
        if self.ladder and self.ladder.climbs({name: array.shape for name, array in inputs[0].items()}):
            # With a ladder, `read` returns tensors of PyTorch only.
            outputs = [*self.ladder.run(wanted, cast("Sequence[Mapping[str, torch.Tensor]]", inputs))]
        else:
            merged = {name: merge([on_host(arrays[name]) for arrays in inputs]) for name in self.input_names}
            # Outputs that nobody asked for are not copied: `ground`, for example, leaves out the pixels.
            outputs = [*self.graph.run(wanted, merged)]
        ends = np.cumsum([len(arrays[self.input_names[0]]) for arrays in inputs])
        starts = [0, *ends[:-1]]
        return [
            {name: output[start:end] for name, output in zip(wanted, outputs, strict=True)}
            for start, end in zip(starts, ends, strict=True)
        ]

    def finalize(self) -> None:
        if self.counter:
            self.counter.close()


def threads_of(parameters: Mapping[str, str]) -> int:
    asked = os.environ.get("VLCLIP_ORT_THREADS") or parameters.get("intra_op_thread_count")
    return int(asked or len(os.sched_getaffinity(0)))


class Graph:
    """A graph. On a CPU, each thread gets rows of the batch; rows that are left over share all threads.

    Cores that share an operator wait for each other at its end, and a whole batch leaves their caches between two
    operators. With rows of its own, a core does neither: this saves a quarter of the mini detector's time, a sixth of
    YOLO-World S's, and most of the memory. It takes a second session with one thread, which holds the weights again.
    A large encoder has only one session: it is mostly weights, and would gain a tenth at most.
    """

    def __init__(self, path: Path, threads: int, providers: Sequence[Provider]) -> None:
        self.together = open_session(path, threads, providers)
        self.input_names: list[str] = [tensor.name for tensor in self.together.get_inputs()]
        self.count = threads
        self.alone: ort.InferenceSession | None = None
        if threads > 1 and providers == [CPU] and path.stat().st_size <= LIGHT_BYTES:
            self.alone = open_session(path, 1, providers)
            self.threads = ThreadPoolExecutor(threads)

    def run(self, wanted: Sequence[str], inputs: Mapping[str, Array]) -> list[Array]:
        """The outputs ``wanted``, in order; all tensors have the batch as their first dimension."""
        rows = len(inputs[self.input_names[0]])
        spread = rows - rows % self.count if self.alone else 0
        row_bytes = sum(array.nbytes for array in inputs.values()) // max(rows, 1)
        step = max(1, min(spread // self.count, PART_BYTES // max(row_bytes, 1)))
        parts = [cut(inputs, start, min(start + step, spread)) for start in range(0, spread, step)]
        pending = [self.threads.submit(self.alone.run, wanted, part) for part in parts if self.alone]
        outputs = [self.together.run(wanted, cut(inputs, spread, rows))] if spread < rows else []
        outputs = [part.result() for part in pending] + outputs
        return [merge(column) for column in zip(*outputs, strict=True)]


def cut(arrays: Mapping[str, Array], start: int, end: int) -> dict[str, Array]:
    return {name: array[start:end] for name, array in arrays.items()}


def shared(tensor: pb_utils.Tensor) -> torch.Tensor:
    """An input as a tensor of PyTorch without a copy, on the GPU if another model left it there."""
    from torch.utils.dlpack import from_dlpack

    return from_dlpack(tensor)


def on_host(array: Array | torch.Tensor) -> Array:
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def tensor_of(name: str, array: Array | torch.Tensor) -> pb_utils.Tensor:
    """An output. A tensor on a GPU stays there for the next model; Triton copies it for callers without one."""
    return pb_utils.Tensor(name, array) if isinstance(array, np.ndarray) else pb_utils.Tensor.from_dlpack(name, array)


def alike(
    requests: Sequence[pb_utils.InferenceRequest], inputs: Sequence[Mapping[str, Array | torch.Tensor]]
) -> dict[tuple[frozenset[str], tuple[tuple[int, ...], ...]], list[int]]:
    """Indices of the requests that can share a run: those with equal wanted outputs and equal shapes but the batch."""
    groups: dict[tuple[frozenset[str], tuple[tuple[int, ...], ...]], list[int]] = {}
    for i, request in enumerate(requests):
        shapes = tuple(tuple(array.shape[1:]) for array in inputs[i].values())
        groups.setdefault((frozenset(request.requested_output_names()), shapes), []).append(i)
    return groups


def merge(arrays: Sequence[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
