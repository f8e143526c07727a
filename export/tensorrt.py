"""From a verified ONNX graph to a TensorRT plan: profiles, build, the engine's dtypes, and how to run it.

A plan loads only in the TensorRT version that built it, on the kind of GPU that built it: build where you serve.
``tensorrt_rtx`` is the exception that the tests live on. It has the same Python API, the same parser and the same
builder, and builds ahead of time for a named GPU on a machine that has none. So the module is a parameter here.

Networks are strongly typed: every dtype is the graph's, TensorRT chooses none. FP32 means FP32, not TF32, whose ten
bits of mantissa would put crops on other grey levels than PIL's.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from export.errors import MachineError, PlanError, UsageError, first_line
from export.graph import FREE_SYMBOLS
from export.sources import CACHE
from serving.repository.specs import CANVASES, ModelSpec, TensorSpec

if TYPE_CHECKING:
    import numpy as np

PLAN = "model.plan"
IN_CONTAINER = (
    "`pip install '.[export]' && python -m export --format tensorrt` in nvcr.io/nvidia/tensorrt:YY.MM-py3, "
    "with the release of the tritonserver image that will serve"
)
DTYPES = {"UINT8": "UINT8", "INT32": "INT32", "INT64": "INT64", "FP32": "FLOAT"}
"""Triton's spelling of a dtype to TensorRT's."""
BATCH_USUAL = 8
"""Rows that kernels are chosen for; a profile serves any other number too."""
SECONDS_BETWEEN_NEWS = 5.0

Range = tuple[int, int, int]
"""Smallest, usual, largest: what TensorRT calls min, opt, max."""


@dataclass(frozen=True)
class Limits:
    """What a plan must serve. ``limits_of`` reads it from the configs beside it."""

    batch: Range = (1, BATCH_USUAL, 64)
    canvas: Range = (min(CANVASES), max(CANVASES), max(CANVASES))
    """The side S in pixels."""


@dataclass(frozen=True)
class Plan:
    content: bytes
    tensors: dict[str, dict[str, Any]]
    """Inputs and outputs by name: ``dtype`` as TensorRT spells it; of inputs, ``shapes`` of the profile, 3 lists."""
    layers: dict[str, int]
    """How many computed tensors of the network have which dtype, before TensorRT fuses layers; weights do not count."""


@dataclass(frozen=True)
class Compiler:
    """A TensorRT module and what it builds for.

    Compiler(tensorrt)                   for the GPU of this machine
    Compiler(tensorrt_rtx, "SM89")       ahead of time for another; cannot be run here
    """

    trt: ModuleType
    capability: str | None = None
    cache: Path = CACHE
    """The folder of ``TimingCache``."""

    @property
    def label(self) -> str:
        return f"{self.trt.__name__} {self.trt.__version__}" + (f" for {self.capability}" if self.capability else "")


def find_compiler() -> Compiler:
    """TensorRT on a machine with a GPU.

    Raises:
        MachineError: one of them is missing; says what to do, and where.
    """
    try:
        import tensorrt
    except ImportError as error:
        raise MachineError(f"plans need the Python package tensorrt, which is not here: run {IN_CONTAINER}") from error
    require_gpu()
    return Compiler(tensorrt)


def require_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        raise MachineError(
            f"plans are built on the GPU that serves them, and PyTorch sees none here: run {IN_CONTAINER}"
        )


def limits_of(repository: Path, leaf: str) -> Limits:
    """The batch that the leaf's config allows and the canvases that ``decode``'s config gives; defaults without.

    The canvases that the gate runs the plan on are always within the limits.
    """
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    def config(name: str) -> Any:
        file = repository / name / "config.pbtxt"
        try:
            return text_format.Parse(file.read_text(), model_config_pb2.ModelConfig())
        except FileNotFoundError:
            return model_config_pb2.ModelConfig()
        except text_format.ParseError as error:
            raise UsageError(f"{file} cannot be read: {first_line(error)}") from error

    largest = config(leaf).max_batch_size or Limits.batch[2]
    sides = [int(side) for side in config("decode").parameters["canvases"].string_value.split()] or CANVASES
    return Limits(
        batch=(1, min(BATCH_USUAL, largest), largest),
        canvas=(min(*sides, *CANVASES), max(sides), max(*sides, *CANVASES)),
    )


def shape_range(tensor: TensorSpec, dims: Sequence[int], limits: Limits) -> tuple[tuple[int, ...], ...]:
    """The smallest, usual and largest shape of an input.

    Args:
        dims: as the network has them, -1 where they are free: in front (the batch), and the canvas's sides.

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
    """A silent logger that keeps errors. TensorRT holds on to the first one it gets, so there is one a module."""

    class Log(trt.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)

    return Log()


def new_monitor(trt: ModuleType, say: Callable[[str], None], seconds: float) -> Any:
    """Tells of a long build every few ``seconds``, and ends it when that fails, above all with Ctrl-C.

    An exception must not pass through TensorRT: it is kept in ``error``, for whoever called the build.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.error: BaseException | None = None
            self.steps: dict[str, int] = {}
            self.told = time.monotonic()

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.steps[phase] = steps

        def step_complete(self, phase: str, step: int) -> bool:
            try:
                if time.monotonic() - self.told >= seconds:
                    self.told = time.monotonic()
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
    say: Callable[[str], None] = print,
    *,
    seconds: float = SECONDS_BETWEEN_NEWS,
) -> Plan:
    """Parses an ONNX file's content and builds its plan.

    Raises:
        PlanError: with TensorRT's reason, and the node where there is one.
    """
    trt, log = compiler.trt, logger_of(compiler.trt)
    log.errors.clear()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph) or not network.num_outputs:
        errors = [parser.get_error(number) for number in range(parser.num_errors)]
        raise PlanError(f"{leaf}: {compiler.label} refuses the graph: {parse_failure(errors)}")
    tensors = check_tensors(leaf, spec, network_tensors(network))

    config = builder.create_builder_config()
    if compiler.capability:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, compiler.capability), 0)
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for ``inspected_dtypes``
    profile = builder.create_optimization_profile()
    for tensor, dims in zip(
        spec.inputs, [tuple(network.get_input(i).shape) for i in range(network.num_inputs)], strict=True
    ):
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
    return Plan(bytes(content), tensors, count_dtypes(trt, network))


class TimingCache:
    """Measured times of kernels, kept for the next build. One file a version: TensorRT refuses another's.

    ``tensorrt_rtx`` measures nothing; it keeps the calls, as ones that do nothing and say that they are deprecated.
    """

    def __init__(self, trt: ModuleType, config: Any, folder: Path):
        self.config = config
        self.file = folder / f"{trt.__name__}-{trt.__version__}.timing"
        known = self.file.read_bytes() if self.file.is_file() else b""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            stored = config.create_timing_cache(known)
            if stored is None or not config.set_timing_cache(
                stored, ignore_mismatch=False
            ):  # damaged, or another GPU's
                config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)

    def save(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            measured = bytes(self.config.get_timing_cache().serialize())
        with suppress(OSError):  # a home folder that cannot be written to costs time, not the build
            self.file.parent.mkdir(parents=True, exist_ok=True)
            partial = self.file.with_suffix(f".{os.getpid()}")
            partial.write_bytes(measured)
            os.replace(partial, self.file)


def parse_failure(errors: Sequence[Any]) -> str:
    """The parser's first error: which node, which operator, why."""
    if not errors:
        return "it is empty"
    where = " ".join(filter(None, [errors[0].node_operator(), errors[0].node_name()]))
    return (f"{where}: " if where else "") + reason(errors[0].desc().splitlines())


def reason(messages: Sequence[str]) -> str:
    """The first of TensorRT's messages that says one; that there is no GPU is known, and no reason."""
    said = [message for message in messages if "Invalid Node" not in message and "cudaError" not in message]
    return " ".join(said[0].split())[:300] if said else "it gives no reason"


def network_tensors(network: Any) -> dict[str, dict[str, Any]]:
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    tensors += [network.get_output(i) for i in range(network.num_outputs)]
    return {tensor.name: {"dtype": tensor.dtype.name} for tensor in tensors}


def engine_tensors(engine: Any) -> dict[str, dict[str, Any]]:
    names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
    return {name: {"dtype": engine.get_tensor_dtype(name).name} for name in names}


def check_tensors(leaf: str, spec: ModelSpec, came: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Names and dtypes of a network or an engine against ``spec``; returns ``came``."""
    wanted = {tensor.name: {"dtype": DTYPES[tensor.dtype]} for tensor in (*spec.inputs, *spec.outputs)}
    if came != wanted:
        apart = sorted(name for name in wanted.keys() | came.keys() if wanted.get(name) != came.get(name))
        raise PlanError(
            f"{leaf}: TensorRT's tensors are not the contract's: "
            + ", ".join(f"{name} is {came.get(name)}, expected {wanted.get(name)}" for name in apart)
        )
    return came


def count_dtypes(trt: ModuleType, network: Any) -> dict[str, int]:
    every = (network.get_layer(number) for number in range(network.num_layers))
    layers = [layer for layer in every if layer.type != trt.LayerType.CONSTANT]
    outputs = [layer.get_output(number) for layer in layers for number in range(layer.num_outputs)]
    return dict(sorted(Counter(output.dtype.name for output in outputs if output is not None).items()))


SPELLED = {"FP32": "FLOAT", "FP16": "HALF"}
"""What the engine inspector calls some dtypes within the name of a format, to TensorRT's own."""
KNOWN = {"FLOAT", "HALF", "BF16", "INT8", "INT32", "INT64", "BOOL", "UINT8"}


def inspected_dtypes(leaf: str, information: str) -> dict[str, int]:
    """How many outputs of the engine's layers, which are fused ones, have which dtype.

    Args:
        information: JSON of the engine inspector, as TensorRT documents it, for engines that were built with
            ``ProfilingVerbosity.DETAILED``. In TensorRT 10 a tensor has ``"Format/Datatype"``, for example "Half"
            or "Row major linear FP16 format"; in TensorRT 11 ``"Datatype"`` beside ``"Format"``.

    Raises:
        PlanError: no layer says a dtype.
    """
    layers = [layer for layer in json.loads(information)["Layers"] if isinstance(layer, dict)]
    outputs = [tensor for layer in layers for tensor in layer.get("Outputs", [])]
    found: Counter[str] = Counter()
    for tensor in outputs:
        words = str(tensor.get("Datatype") or tensor.get("Format/Datatype", "")).upper().strip(".").split()
        found.update([name for word in words if (name := SPELLED.get(word, word)) in KNOWN][:1])
    if not found:
        raise PlanError(f"{leaf}: the engine inspector tells no dtypes: {information[:160]!r}")
    return dict(sorted(found.items()))


def check_precision(leaf: str, network: dict[str, int], engine: dict[str, int]) -> None:
    """Refuses an engine that computes in FP16 where the graph does not, or never where the graph does."""
    holders = [name for name, dtypes in (("graph", network), ("engine", engine)) if "HALF" in dtypes]
    if len(holders) == 1:
        raise PlanError(
            f"{leaf}: only the {holders[0]} has FP16: the graph's tensors are {network}, the engine's {engine}"
        )


@dataclass
class Engine:
    """A plan, loaded to be run on the GPU of this machine.

    Written against TensorRT's documentation. It was not run yet: where this was written, there was no GPU.

    Raises:
        PlanError: the plan does not load here, its tensors are not those of ``spec``, or its dtypes not the graph's.
    """

    trt: ModuleType
    leaf: str
    spec: ModelSpec
    plan: Plan
    context: Any = field(init=False)

    def __post_init__(self) -> None:
        logger_of(self.trt).errors.clear()
        self.runtime = self.trt.Runtime(logger_of(self.trt))
        self.engine = self.runtime.deserialize_cuda_engine(self.plan.content)
        if self.engine is None:
            raise PlanError(f"{self.leaf}: the plan does not load: {reason(logger_of(self.trt).errors)}")
        check_tensors(self.leaf, self.spec, engine_tensors(self.engine))
        told = self.engine.create_engine_inspector().get_engine_information(self.trt.LayerInformationFormat.JSON)
        check_precision(self.leaf, self.plan.layers, inspected_dtypes(self.leaf, told))
        self.context = self.engine.create_execution_context()

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import torch

        tensors = {name: torch.from_numpy(value).cuda().contiguous() for name, value in inputs.items()}
        for name, value in tensors.items():
            self.context.set_input_shape(name, tuple(value.shape))
        for spec in self.spec.outputs:
            dtype = {"FP32": torch.float32, "INT32": torch.int32}[spec.dtype]
            tensors[spec.name] = torch.empty(
                tuple(self.context.get_tensor_shape(spec.name)), dtype=dtype, device="cuda"
            )
        for name, value in tensors.items():
            self.context.set_tensor_address(name, value.data_ptr())
        torch.cuda.synchronize()
        if not self.context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise PlanError(f"{self.leaf}: the plan does not run: {reason(logger_of(self.trt).errors)}")
        torch.cuda.synchronize()
        return {spec.name: tensors[spec.name].cpu().numpy() for spec in self.spec.outputs}
