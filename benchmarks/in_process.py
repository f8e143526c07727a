"""``product_image`` without a server: the leaves of a model repository, called one after the other in this process."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime as ort
from google.protobuf import text_format
from tokenizers import Tokenizer
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.repository.manifest import read_served

REPOSITORY = Path(__file__).parent.parent / "model_repository"
GRAPHS = ("encode_prompt", "detect", "crop", "encode_image")
CORES = len(os.sched_getaffinity(0))
ANSWER = ("EMBEDDING", "BOX", "SCORE", "STATUS")


class InProcess:
    """The graphs that ``repository`` serves, with the server's decoding and as many threads as there are cores.

    ``options`` are ONNX Runtime's; by default those of the server, which keep idle threads from spinning.
    """

    def __init__(self, repository: Path = REPOSITORY, options: ort.SessionOptions | None = None) -> None:
        served = read_served(repository)
        version = str(served["version"]) if served else "1"
        images = load_images(repository)
        config = text_format.Parse((repository / "decode/config.pbtxt").read_text(), ModelConfig())
        self._decode, self._stack = images.decode, images.stack
        self._limits = images.Limits.parse({name: value.string_value for name, value in config.parameters.items()})
        self._tokenizer = Tokenizer.from_file(str(repository / "tokenize_prompt" / version / "tokenizer.json"))
        self._threads = ThreadPoolExecutor(CORES)
        self._sessions = {
            name: ort.InferenceSession(
                repository / name / version / "model.onnx",
                options or quiet_options(),
                providers=["CPUExecutionProvider"],
            )
            for name in GRAPHS
        }

    def embed(
        self, files: Sequence[bytes], product_types: Sequence[str]
    ) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """EMBEDDING [B, D], BOX [B, 4], SCORE and STATUS [B, 1], and the milliseconds of each stage."""
        took: dict[str, float] = {}
        start = time.perf_counter()
        map_files = map if len(files) == 1 else self._threads.map
        images = [*map_files(lambda file: self._decode(file, self._limits), files)]
        tensors: dict[str, np.ndarray] = {
            "CANVAS": self._stack(images, self._limits.canvas_for(image.image_rgb for image in images)),
            "SIZE": np.array([image.size for image in images], np.int32),
            "DECODED": np.array([[image.status] for image in images], np.int32),
        }
        took["decode"] = 1e3 * (time.perf_counter() - start)
        start = time.perf_counter()
        encodings = self._tokenizer.encode_batch_fast([product_type.strip() for product_type in product_types])
        tensors["TOKENS"] = np.array([encoding.ids for encoding in encodings], np.int64)
        took["tokenize_prompt"] = 1e3 * (time.perf_counter() - start)
        for name, session in self._sessions.items():
            start = time.perf_counter()
            outputs = session.run(None, {tensor.name: tensors[tensor.name] for tensor in session.get_inputs()})
            took[name] = 1e3 * (time.perf_counter() - start)
            tensors.update(zip((tensor.name for tensor in session.get_outputs()), outputs, strict=True))
        return {name: tensors[name] for name in ANSWER}, took


def load_images(repository: Path = REPOSITORY) -> ModuleType:
    """The decoding of a repository's ``decode``, which is no package."""
    spec = importlib.util.spec_from_file_location("vlclip_images", repository / "decode/1/images.py")
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def quiet_options(threads: int = CORES) -> ort.SessionOptions:
    """Those of the server: idle threads sleep."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
