"""``product_image`` without a server: the same graphs, called one after the other in this process."""

from __future__ import annotations

import os
from collections.abc import Sequence
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

REPOSITORY = REPOSITORIES[0]
GRAPHS = ("encode_prompt", "detect", "crop", "encode_image")
CORES = len(os.sched_getaffinity(0))
ANSWER = tuple(tensor.name for tensor in PIPELINES["product_image"].outputs)


class InProcess:
    """The graphs that ``repository`` serves, with the server's decoder and one decoding thread for each core.

    ``options`` are those of ONNX Runtime. By default they are the server's, so that idle threads sleep.
    """

    def __init__(self, repository: Path = REPOSITORY, options: ort.SessionOptions | None = None) -> None:
        served = read_served(repository)
        version = str(served.version) if served else "1"
        parameters = read_config(repository / "decode").parameters
        self._limits = Limits.parse({name: value.string_value for name, value in parameters.items()})
        self._tokenizer = Tokenizer.from_file(str(repository / "tokenize_prompt" / version / "tokenizer.json"))
        self._threads = ThreadPoolExecutor(CORES)
        self._sessions = [
            ort.InferenceSession(
                repository / graph / version / "model.onnx",
                options or quiet_options(),
                providers=["CPUExecutionProvider"],
            )
            for graph in GRAPHS
        ]

    def embed(self, files: Sequence[bytes], product_types: Sequence[str]) -> dict[str, np.ndarray]:
        """EMBEDDING [B, D], BOX [B, 4], SCORE [B, 1] and STATUS [B, 1] of B files."""
        map_files = map if len(files) == 1 else self._threads.map
        images = [*map_files(lambda file: decode(file, self._limits), files)]
        encodings = self._tokenizer.encode_batch_fast([product_type.strip() for product_type in product_types])
        tensors: dict[str, np.ndarray] = {
            "CANVAS": stack(images, self._limits.canvas_for(image.size for image in images)),
            "SIZE": np.array([image.size for image in images], np.int32),
            "DECODED": np.array([[image.status] for image in images], np.int32),
            "TOKENS": np.array([encoding.ids for encoding in encodings], np.int64),
        }
        for session in self._sessions:
            outputs = session.run(None, {tensor.name: tensors[tensor.name] for tensor in session.get_inputs()})
            tensors.update(zip((tensor.name for tensor in session.get_outputs()), outputs, strict=True))
        return {name: tensors[name] for name in ANSWER}


def quiet_options() -> ort.SessionOptions:
    """The server's options of ONNX Runtime: a thread for each core, which sleeps while it is idle."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = CORES
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
