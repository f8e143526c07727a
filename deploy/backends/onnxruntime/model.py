"""A stand-in for Triton's onnxruntime backend: runs a model's `model.onnx` with the ONNX Runtime package.

Triton takes `<backend directory>/onnxruntime/model.py` for the backend named onnxruntime, so the configs need not
know which of the two serves them.

    VLCLIP_ORT_THREADS     threads per operator; by default as many as there are cores
"""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        """The config says everything; Triton wants the hook to exist."""
        return config

    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.output_names = [output["name"] for output in config["output"]]
        self.session = open_session(Path(args["model_repository"], args["model_version"], "model.onnx"))
        self.input_names = [tensor.name for tensor in self.session.get_inputs()]

    def execute(self, requests):
        """Answer every request, in order: those that ask for the same outputs in one run, if their shapes allow."""
        inputs = [self.read(request) for request in requests]
        responses = [None] * len(requests)
        for indices in alike(requests, inputs).values():
            wanted = [name for name in self.output_names if name in requests[indices[0]].requested_output_names()]
            try:
                rows = [len(next(iter(inputs[i].values()))) for i in indices]
                merged = {name: merge([inputs[i][name] for i in indices]) for name in self.input_names}
                outputs = self.session.run(wanted, merged)
            except Exception as error:
                failed = pb_utils.InferenceResponse(error=pb_utils.TritonError(f"{type(error).__name__}: {error}"))
                for i in indices:
                    responses[i] = failed
                continue
            ends = np.cumsum(rows)
            for i, start, end in zip(indices, ends - rows, ends):
                tensors = [pb_utils.Tensor(name, output[start:end]) for name, output in zip(wanted, outputs)]
                responses[i] = pb_utils.InferenceResponse(tensors)
        return responses

    def read(self, request):
        return {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.input_names}


def open_session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("VLCLIP_ORT_THREADS") or len(os.sched_getaffinity(0)))
    # The leaves take turns on the same cores: a thread that spins between runs takes time from the next leaf.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def alike(requests, inputs):
    """Indices of the requests, grouped by what must agree for one run: outputs asked for, shapes but for the batch."""
    groups = {}
    for i, request in enumerate(requests):
        shapes = tuple(array.shape[1:] for array in inputs[i].values())
        groups.setdefault((frozenset(request.requested_output_names()), shapes), []).append(i)
    return groups


def merge(arrays):
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
