"""A stand-in for Triton's onnxruntime backend: runs a model's `model.onnx` with the ONNX Runtime package.

Triton takes `<backend directory>/onnxruntime/model.py` for the backend named onnxruntime, so the configs need not
know which of the two serves them. Of a config it heeds what that backend does:

    instance_group [ { kind: KIND_GPU } ]                                    run on CUDA
    parameters { key: "intra_op_thread_count" value: { string_value: "2" } } threads of a model; by default one a core

and of its own

    parameters { key: "batch_ladder" value: { string_value: "1 8 32 64" } }      run at these batch sizes only: `ladder`
    parameters { key: "ladder_sizes" value: { string_value: "S=448, S=768" } }   open them for these sizes at once
    parameters { key: "FORCE_CPU_ONLY_INPUT_TENSORS" value: { string_value: "no" } }  the Python backend's: leave on the
                                                                                 GPU what another model left there

VLCLIP_ORT_THREADS in the environment says the number of threads for all models, whatever their configs say.
"""

import json
import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

CPU = "CPUExecutionProvider"
PART_BYTES = 1 << 20
"""Of inputs that go to a core at once: few enough that what comes of them stays in its cache."""
LIGHT_BYTES = 64 << 20
"""The largest graph that is held twice."""


class TritonPythonModel:
    def initialize(self, args):
        path = Path(args["model_repository"], args["model_version"], "model.onnx")
        config = json.loads(args["model_config"])
        threads = threads_of(config)
        kind, device = args["model_instance_kind"], args["model_instance_device_id"]
        if kind == "GPU":
            ort.preload_dlls()  # of CUDA and cuDNN, where pip installed them
        self.graph = Graph(path, threads, providers_of(kind, device))
        self.input_names = self.graph.input_names
        self.ladder = None
        if "batch_ladder" in config.get("parameters", {}):
            self.ladder = open_ladder(config, self.graph.together, path, threads, kind, device)

    def execute(self, requests):
        """Answer every request, in order; those that may share a run share it."""
        inputs = [self.read(request) for request in requests]
        responses = [None] * len(requests)
        for (wanted, _), indices in alike(requests, inputs).items():
            try:
                outputs = self.run(sorted(wanted), [inputs[i] for i in indices])
                answers = [pb_utils.InferenceResponse([tensor_of(*item) for item in one.items()]) for one in outputs]
            except Exception as error:
                message = f"{type(error).__name__}: {error}"
                answers = [pb_utils.InferenceResponse(error=pb_utils.TritonError(message)) for _ in indices]
            for i, answer in zip(indices, answers, strict=True):
                responses[i] = answer
        return responses

    def read(self, request):
        tensors = {name: pb_utils.get_input_tensor_by_name(request, name) for name in self.input_names}
        as_array = self.ladder is None and all(tensor.is_cpu() for tensor in tensors.values())
        return {name: tensor.as_numpy() if as_array else shared(tensor) for name, tensor in tensors.items()}

    def run(self, wanted, inputs):
        """Run the rows of several requests as one batch; give each request the outputs of its rows."""
        if self.ladder and self.ladder.climbs({name: array.shape for name, array in inputs[0].items()}):
            outputs = self.ladder.run(wanted, inputs)
        else:
            merged = {name: merge([on_host(arrays[name]) for arrays in inputs]) for name in self.input_names}
            # What nobody asked for is not copied back: `ground`, for one, leaves out the pixels.
            outputs = self.graph.run(wanted, merged)
        ends = np.cumsum([len(arrays[self.input_names[0]]) for arrays in inputs])
        starts = [0, *ends[:-1]]
        return [
            {name: output[start:end] for name, output in zip(wanted, outputs, strict=True)}
            for start, end in zip(starts, ends, strict=True)
        ]


def threads_of(config):
    asked = config.get("parameters", {}).get("intra_op_thread_count", {}).get("string_value")
    return int(os.environ.get("VLCLIP_ORT_THREADS") or asked or len(os.sched_getaffinity(0)))


def providers_of(kind, device, capture=False):
    """What runs the graph: on a GPU, CUDA with the search that costs least when the shape of a batch is new.

    With ``capture``, a session's runs are captured as a CUDA graph and replayed; it may then see one shape only.
    """
    if kind != "GPU":
        return [CPU]
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise RuntimeError("KIND_GPU, and the ONNX Runtime here has no CUDA: pip install onnxruntime-gpu")
    options = {"device_id": device, "cudnn_conv_algo_search": "HEURISTIC"}
    return [("CUDAExecutionProvider", options | ({"enable_cuda_graph": "1"} if capture else {}))]


class Graph:
    """A graph. On a CPU the rows of a batch are dealt out to the threads; what is too little for that, they share.

    Cores that share an operator wait for each other at its end, and a whole batch leaves the cache between two
    operators. Rows that are dealt out spare both: a quarter of the mini detector's time, a sixth of YOLO-World S's, and
    most of the memory. It takes a session of one thread beside the one of all, hence the weights twice. A large encoder
    is mostly weights, would win a tenth at best, and has one session.
    """

    def __init__(self, path, threads, providers):
        self.together = open_session(path, threads, providers)
        self.input_names = [tensor.name for tensor in self.together.get_inputs()]
        self.count = threads
        self.alone = None
        if threads > 1 and providers == [CPU] and path.stat().st_size <= LIGHT_BYTES:
            self.alone = open_session(path, 1, providers)
            self.threads = ThreadPoolExecutor(threads)

    def run(self, wanted, inputs):
        """The outputs ``wanted``, in order; all tensors have the batch as their first dimension."""
        rows = len(inputs[self.input_names[0]])
        spread = rows - rows % self.count if self.alone else 0
        row_bytes = sum(array.nbytes for array in inputs.values()) // max(rows, 1)
        step = max(1, min(spread // self.count, PART_BYTES // max(row_bytes, 1)))
        parts = [cut(inputs, start, min(start + step, spread)) for start in range(0, spread, step)]
        pending = [self.threads.submit(self.alone.run, wanted, part) for part in parts]
        outputs = [self.together.run(wanted, cut(inputs, spread, rows))] if spread < rows else []
        outputs = [part.result() for part in pending] + outputs
        return [merge(column) for column in zip(*outputs, strict=True)]


def cut(arrays, start, end):
    return {name: array[start:end] for name, array in arrays.items()}


def open_session(path, threads, providers, sizes=None):
    """``sizes`` fixes dimensions of the graph, by their names."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # The leaves take turns on the same cores: a thread that spins between runs takes time from the next leaf.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name, size in (sizes or {}).items():
        options.add_free_dimension_override_by_name(name, size)
    # Of an FP16 graph, this one makes ONNX Runtime 1.32 crash on the CPU: at a MatMul behind a Transpose.
    disabled = ["NchwcTransformer"] if is_fp16(path) else []
    # Left to itself, ONNX Runtime goes on with other providers where it cannot have these.
    session = ort.InferenceSession(path, options, providers=providers, disabled_optimizers=disabled, enable_fallback=0)
    wanted = providers[0][0] if isinstance(providers[0], tuple) else providers[0]
    if session.get_providers()[0] != wanted:
        raise RuntimeError(f"ONNX Runtime has {wanted} and cannot load it: CUDA or cuDNN is missing or does not fit")
    return session


def open_ladder(config, session, path, threads, kind, device):
    import torch  # Seconds and megabytes that a server without a ladder does not pay for.

    from serving.backends.onnxruntime.ladder import Ladder, Plan

    texts = {name: value["string_value"] for name, value in config["parameters"].items()}
    target = torch.device("cuda", int(device)) if kind == "GPU" else torch.device("cpu")
    if kind == "GPU":
        torch.cuda.set_device(target)

    def open_rung(sizes):
        try:
            return open_session(path, threads, providers_of(kind, device, capture=True), sizes)
        except Exception as error:
            # ONNX Runtime captures a graph only if all of it runs on CUDA. Without, a run costs its launches.
            if kind != "GPU":
                raise
            pb_utils.Logger.log_warn(f"{config['name']} at {sizes} runs without a CUDA graph: {error}")
            return open_session(path, threads, providers_of(kind, device), sizes)

    signature = {tensor.name: tensor.shape for tensor in session.get_inputs()}
    plan = Plan.parse(texts["batch_ladder"], texts.get("ladder_sizes", ""))
    return Ladder(plan, signature, open_rung, target)


def shared(tensor):
    """The memory of an input, on the GPU if another model left it there, as a tensor of PyTorch and not a copy."""
    import torch

    return torch.from_dlpack(tensor)


def on_host(array):
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def tensor_of(name, array):
    """An output: a tensor on a GPU stays there for the next model, and Triton copies it to callers who have none."""
    return pb_utils.Tensor(name, array) if isinstance(array, np.ndarray) else pb_utils.Tensor.from_dlpack(name, array)


def is_fp16(path):
    """Whether the exporter's metadata says so."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.rfind(b'"precision": "fp16"') >= 0


def alike(requests, inputs):
    """Indices of the requests, grouped by what must agree for one run: outputs asked for, shapes but for the batch."""
    groups = {}
    for i, request in enumerate(requests):
        shapes = tuple(array.shape[1:] for array in inputs[i].values())
        groups.setdefault((frozenset(request.requested_output_names()), shapes), []).append(i)
    return groups


def merge(arrays):
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
