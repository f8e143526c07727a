"""Build a TensorRT plan from a verified ONNX graph.

A plan loads only in the TensorRT version that built it, on the kind of GPU that built it: build where you serve.
``tensorrt_rtx`` is the exception, which the tests use. It has the same Python API, parser and builder, and builds
ahead of time for a GPU that the machine does not have. So the module is a parameter here.

Networks are strongly typed: TensorRT takes every dtype from the graph. FP32 means FP32 and not TF32, whose 10 bits of
mantissa would change the grey levels of crops.
"""

# mypy: disallow-subclassing-any=False
# The base classes are attributes of the module that is a parameter.

from __future__ import annotations

import os
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from tritonclient.grpc.model_config_pb2 import ModelConfig

from export.errors import MachineError, PlanError
from export.graph import FREE_SYMBOLS
from export.progress import SECONDS_BETWEEN_LINES, Say
from export.sources import CACHE
from serving.repository.profiles import read_config
from serving.repository.specs import CANVASES, ModelSpec, TensorSpec

PLAN = "model.plan"
IN_CONTAINER = (
    "`pip install '.[export]' && python -m export --format tensorrt` in nvcr.io/nvidia/tensorrt:YY.MM-py3 "
    "of the same release as the tritonserver image that will serve"
)
DTYPES = {"UINT8": "UINT8", "INT32": "INT32", "INT64": "INT64", "FP32": "FLOAT"}
"""Triton's names of dtypes, and TensorRT's."""
LARGEST_BATCH = 64

Range = tuple[int, int, int]
"""The smallest, the optimal and the largest size: TensorRT's min, opt and max."""


@dataclass(frozen=True)
class Limits:
    """The sizes that a plan must serve. ``limits_of`` reads them from the configs of a repository."""

    batch: Range = (1, LARGEST_BATCH, LARGEST_BATCH)
    """The optimal batch is the largest: TensorRT chooses kernels for it, and under load it is what runs."""
    canvas: Range = (min(CANVASES), max(CANVASES), max(CANVASES))
    """The side S in pixels."""


@dataclass(frozen=True)
class BuiltPlan:
    """The content of a plan's file, and the network that it was built from."""

    content: bytes
    tensors: dict[str, dict[str, Any]]
    """Inputs and outputs by name: ``dtype`` as in TensorRT; for inputs also the three ``shapes`` of the profile."""
    layers: dict[str, int]
    """The number of computed tensors by dtype, before TensorRT fuses layers and without weights."""


@dataclass(frozen=True)
class Compiler:
    """A TensorRT module and the GPU that it builds for.

    Compiler(tensorrt)                   for the GPU of this machine
    Compiler(tensorrt_rtx, "SM89")       ahead of time for another GPU; the plan cannot run here
    """

    trt: ModuleType
    capability: str | None = None
    cache: Path = CACHE
    """The folder of ``TimingCache``."""

    @property
    def label(self) -> str:
        return f"{self.trt.__name__} {self.trt.__version__}" + (f" for {self.capability}" if self.capability else "")


def find_compiler() -> Compiler:
    """TensorRT for this machine's GPU.

    Raises:
        MachineError: TensorRT or the GPU is missing; the message says what to do, and where.
    """
    try:
        import tensorrt
    except ImportError as error:
        raise MachineError(
            f"plans need the Python package tensorrt, which is not installed here: run {IN_CONTAINER}"
        ) from error
    require_gpu()
    return Compiler(tensorrt)


def require_gpu() -> None:
    if not torch.cuda.is_available():
        raise MachineError(
            f"plans are built on the GPU that serves them, and PyTorch sees none here: run {IN_CONTAINER}"
        )


def limits_of(repository: Path, leaf: str) -> Limits:
    """The largest batch of the leaf's config and the canvases of ``decode``'s config, with defaults if there are none.

    The canvases that the gate uses are always within the limits.
    """

    def config(name: str) -> ModelConfig:
        folder = repository / name
        return read_config(folder) if (folder / "config.pbtxt").is_file() else ModelConfig()

    largest = config(leaf).max_batch_size or LARGEST_BATCH
    sides = [int(side) for side in config("decode").parameters["canvases"].string_value.split()] or CANVASES
    return Limits(
        batch=(1, largest, largest),
        canvas=(min(*sides, *CANVASES), max(sides), max(*sides, *CANVASES)),
    )


def shape_range(tensor: TensorSpec, dims: Sequence[int], limits: Limits) -> tuple[tuple[int, ...], ...]:
    """The smallest, the optimal and the largest shape of an input.

    Args:
        dims: the network's dimensions, -1 if they are free: the batch, which comes first, and the sides of the canvas.

    Raises:
        PlanError: another dimension is free.
    """
    ranges: list[Range] = []
    for axis, size in enumerate(dims):
        if axis == 0:
            ranges.append(limits.batch)
        elif size != -1:
            ranges.append((size, size, size))
        elif tensor.shape[axis - 1] in FREE_SYMBOLS:
            ranges.append(limits.canvas)
        else:
            raise PlanError(f"{tensor.name}: axis {axis} is free, and no profile is known for {tensor.shape[axis - 1]}")
    return tuple(zip(*ranges, strict=True))


@lru_cache
def logger_of(trt: ModuleType) -> Any:
    """A silent logger that keeps errors. There is one per module, because TensorRT keeps the first one it gets."""

    class Log(trt.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)

    return Log()


def new_monitor(trt: ModuleType, say: Say, seconds: float) -> Any:
    """Reports the progress of a build every few ``seconds``, and ends the build if that fails, as with Ctrl-C.

    An exception must not pass through TensorRT. It is kept in ``error`` for the caller of the build.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.error: BaseException | None = None
            self.steps: dict[str, int] = {}
            self.last = time.monotonic()

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.steps[phase] = steps

        def step_complete(self, phase: str, step: int) -> bool:
            try:
                if time.monotonic() - self.last >= seconds:
                    self.last = time.monotonic()
                    say(f"        {phase}: {step + 1} of {self.steps[phase]}")
            except BaseException as error:
                self.error = error
            return self.error is None

        def phase_finish(self, phase: str) -> None:
            self.steps.pop(phase, None)

    return Monitor()


def compile_graph(
    graph: bytes,
    leaf: str,
    spec: ModelSpec,
    limits: Limits,
    compiler: Compiler,
    say: Say = print,
    *,
    seconds: float = SECONDS_BETWEEN_LINES,
) -> BuiltPlan:
    """Parse the content of an ONNX file and build its plan.

    Raises:
        PlanError: with TensorRT's reason, and the node if it names one.
    """
    trt, log = compiler.trt, logger_of(compiler.trt)
    log.errors.clear()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph) or not network.num_outputs:
        errors = [parser.get_error(number) for number in range(parser.num_errors)]
        raise PlanError(f"{leaf}: {compiler.label} refuses the graph: {parse_failure(errors)}")
    inputs = [network.get_input(number) for number in range(network.num_inputs)]
    outputs = [network.get_output(number) for number in range(network.num_outputs)]
    dtypes = {tensor.name: tensor.dtype.name for tensor in [*inputs, *outputs]}
    check_tensors(leaf, spec, dtypes)

    config = builder.create_builder_config()
    if compiler.capability:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, compiler.capability), 0)
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for ``export.engine.inspected_dtypes``
    profile = builder.create_optimization_profile()
    tensors: dict[str, dict[str, Any]] = {name: {"dtype": dtype} for name, dtype in dtypes.items()}
    for tensor, dims in zip(spec.inputs, [tuple(value.shape) for value in inputs], strict=True):
        profile.set_shape(tensor.name, *shape_range(tensor, dims, limits))
        tensors[tensor.name]["shapes"] = [list(shape) for shape in profile.get_shape(tensor.name)]
    config.add_optimization_profile(profile)
    monitor = new_monitor(trt, say, seconds)
    config.progress_monitor = monitor

    timings = TimingCache(trt, config, compiler.cache)
    content = builder.build_serialized_network(network, config)
    if monitor.error:
        raise monitor.error
    if content is None:
        raise PlanError(f"{leaf}: {compiler.label} cannot build the graph: {reason(log.errors)}")
    timings.save()
    return BuiltPlan(bytes(content), tensors, count_dtypes(trt, network))


class TimingCache:
    """Measured times of kernels, kept for the next build. Each TensorRT version has its own file.

    ``tensorrt_rtx`` measures nothing. Its functions do nothing but warn that they are deprecated.
    """

    def __init__(self, trt: ModuleType, config: Any, folder: Path) -> None:
        self.config = config
        self.file = folder / f"{trt.__name__}-{trt.__version__}.timing"
        known = self.file.read_bytes() if self.file.is_file() else b""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            stored = config.create_timing_cache(known)
            # A file that is damaged, or of another GPU, is replaced.
            if stored is None or not config.set_timing_cache(stored, ignore_mismatch=False):
                config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)

    def save(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            measured = bytes(self.config.get_timing_cache().serialize())
        with suppress(OSError):  # without the file, the next build takes longer
            self.file.parent.mkdir(parents=True, exist_ok=True)
            partial = self.file.with_suffix(f".{os.getpid()}")
            partial.write_bytes(measured)
            os.replace(partial, self.file)


def parse_failure(errors: Sequence[Any]) -> str:
    """The parser's first error, with its operator and node."""
    if not errors:
        return "it is empty"
    where = " ".join(filter(None, [errors[0].node_operator(), errors[0].node_name()]))
    return (f"{where}: " if where else "") + reason(errors[0].desc().splitlines())


def reason(messages: Sequence[str]) -> str:
    """TensorRT's first message that is a reason. Messages about the missing GPU are not."""
    reasons = [message for message in messages if "Invalid Node" not in message and "cudaError" not in message]
    return " ".join(reasons[0].split())[:300] if reasons else "it gives no reason"


def check_tensors(leaf: str, spec: ModelSpec, dtypes: dict[str, str]) -> None:
    """Compare the names and dtypes of a network's or an engine's tensors with ``spec``."""
    expected = {tensor.name: DTYPES[tensor.dtype] for tensor in (*spec.inputs, *spec.outputs)}
    if dtypes != expected:
        names = sorted(name for name in expected.keys() | dtypes.keys() if expected.get(name) != dtypes.get(name))
        raise PlanError(
            f"{leaf}: TensorRT's tensors are not the contract's: "
            + ", ".join(f"{name} is {dtypes.get(name)}, expected {expected.get(name)}" for name in names)
        )


def count_dtypes(trt: ModuleType, network: Any) -> dict[str, int]:
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    outputs = [
        layer.get_output(number)
        for layer in layers
        if layer.type != trt.LayerType.CONSTANT
        for number in range(layer.num_outputs)
    ]
    return dict(sorted(Counter(output.dtype.name for output in outputs if output is not None).items()))
