"""The served graphs without a server: called one after the other in this process."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

from serving.decode.images import Limits, decode, stack
from serving.paths import REPOSITORIES
from serving.repository.manifest import read_served
from serving.repository.profiles import read_config
from serving.repository.specs import PIPELINES
from serving.texts import beginning

REPOSITORY = REPOSITORIES[0]
DETECT = ("encode_prompt", "detect")
GRAPHS = (*DETECT, "crop", "encode_image")
CORES = len(os.sched_getaffinity(0))
ANSWER = tuple(tensor.name for tensor in PIPELINES["product_image"].outputs)
Tensors = Mapping[str, np.ndarray]


class InProcess:
    """The graphs of ``product_image``, with the server's decoder and one decoding thread for each core.

    Args:
        repository: the model repository.
        options: ONNX Runtime's. By default they are the server's, so that idle threads sleep.
        version: the version to run. By default it is the one that is served.
        graphs: the graphs to load.
    """

    def __init__(
        self,
        repository: Path = REPOSITORY,
        options: ort.SessionOptions | None = None,
        version: int | None = None,
        graphs: Sequence[str] = GRAPHS,
    ) -> None:
        served = read_served(repository)
        if version is None:
            version = served.version if served else 1
        # As on the server: with FP16 graphs, this optimizer makes ONNX Runtime crash on a CPU.
        is_half = served is not None and served.request.settings.precision == "fp16"
        parameters = read_config(repository / "decode").parameters
        self._limits = Limits.parse({name: value.string_value for name, value in parameters.items()})
        parameters = read_config(repository / "tokenize_prompt").parameters
        self._max_characters = int(parameters["max_characters"].string_value)
        self._tokenizer = Tokenizer.from_file(str(repository / "tokenize_prompt" / str(version) / "tokenizer.json"))
        self._threads = ThreadPoolExecutor(CORES)
        self._sessions = [
            ort.InferenceSession(
                repository / graph / str(version) / "model.onnx",
                options or quiet_options(),
                providers=["CPUExecutionProvider"],
                disabled_optimizers=["NchwcTransformer"] if is_half else [],
            )
            for graph in graphs
        ]

    def decode(self, files: Sequence[bytes]) -> dict[str, np.ndarray]:
        """CANVAS [B, S, S, 3], SIZE [B, 4] and DECODED [B, 1] of B files."""
        map_files = map if len(files) == 1 else self._threads.map
        images = [*map_files(lambda file: decode(file, self._limits), files)]
        return {
            "CANVAS": stack(images, self._limits.canvas_for(image.size for image in images)),
            "SIZE": np.array([image.size for image in images], np.int32),
            "DECODED": np.array([[image.status] for image in images], np.int32),
        }

    def run(self, decoded: Tensors, product_types: Sequence[str]) -> dict[str, np.ndarray]:
        """All tensors of the graphs for B decoded images and the product type of each."""
        read, is_cut = zip(*(beginning(kind.encode(), self._max_characters) for kind in product_types), strict=True)
        encodings = self._tokenizer.encode_batch_fast([text.strip() for text in read])
        truncated = np.array(is_cut) | [bool(encoding.overflowing) for encoding in encodings]
        tokens = np.array([encoding.ids for encoding in encodings], np.int64)
        tensors = {**decoded, "TOKENS": tokens, "TRUNCATED": truncated[:, None]}
        for session in self._sessions:
            outputs = session.run(None, {tensor.name: tensors[tensor.name] for tensor in session.get_inputs()})
            tensors.update(zip((tensor.name for tensor in session.get_outputs()), outputs, strict=True))
        return tensors

    def embed(self, files: Sequence[bytes], product_types: Sequence[str]) -> dict[str, np.ndarray]:
        """The outputs of ``product_image`` for B files."""
        tensors = self.run(self.decode(files), product_types)
        return {name: tensors[name] for name in ANSWER}


def quiet_options() -> ort.SessionOptions:
    """The server's options of ONNX Runtime: a thread for each core, which sleeps while it is idle."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = CORES
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
