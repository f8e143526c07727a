"""What serving costs: one image through the pipeline, beside the same graphs run in this process.

    python -m benchmarks.latency --json out.json

One client sends one image at a time to ``product_image``. In between, the graphs that the pipeline chains run here,
with the same runtime and threads, on the same image. The medians of both stand side by side; their difference is what
Triton, the hops between the models, decoding and tokenizing cost.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from google.protobuf import text_format
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer
from tritonclient.grpc.model_config_pb2 import ModelConfig

from benchmarks.retrieval import draw_scenes
from benchmarks.target import keep, parser_of, served
from training.catalogue.items import TRAINED_TYPES
from vlclip import Client

REPOSITORY = Path(__file__).parent.parent / "model_repository"
GRAPHS = ("encode_prompt", "detect", "crop", "encode_image")


class InProcess:
    """``product_image`` without a server: the leaves of the model repository, called one after the other."""

    def __init__(self, repository: Path = REPOSITORY) -> None:
        sys.path.insert(0, str(repository / "decode/1"))
        from images import Limits, decode, stack  # type: ignore[import-not-found]

        config = text_format.Parse((repository / "decode/config.pbtxt").read_text(), ModelConfig())
        self._decode, self._stack = decode, stack
        self._limits = Limits.parse({name: value.string_value for name, value in config.parameters.items()})
        self._tokenizer = Tokenizer.from_file(str(repository / "tokenize_prompt/1/tokenizer.json"))
        options = ort.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._sessions = {
            name: ort.InferenceSession(repository / name / "1/model.onnx", options, providers=["CPUExecutionProvider"])
            for name in GRAPHS
        }

    def embed(self, file: bytes, product_type: str) -> tuple[np.ndarray, dict[str, float]]:
        """The embedding [1, D] and the milliseconds of each stage."""
        took: dict[str, float] = {}
        start = time.perf_counter()
        image = self._decode(file, self._limits)
        tensors: dict[str, np.ndarray] = {
            "CANVAS": self._stack([image], self._limits.canvas_for([image.image_rgb])),
            "SIZE": np.array([image.size], np.int32),
            "DECODED": np.array([[image.status]], np.int32),
        }
        took["decode"] = 1e3 * (time.perf_counter() - start)
        start = time.perf_counter()
        tensors["TOKENS"] = np.array([self._tokenizer.encode(product_type).ids], np.int64)
        took["tokenize_prompt"] = 1e3 * (time.perf_counter() - start)
        for name, session in self._sessions.items():
            start = time.perf_counter()
            outputs = session.run(None, {tensor.name: tensors[tensor.name] for tensor in session.get_inputs()})
            took[name] = 1e3 * (time.perf_counter() - start)
            tensors.update(zip((tensor.name for tensor in session.get_outputs()), outputs, strict=True))
        return tensors["EMBEDDING"], took


def run(client: Client, rounds: int) -> dict[str, Any]:
    """Alternate between the pipeline and the process; medians in milliseconds."""
    photos = draw_scenes(20, 7, TRAINED_TYPES)
    here = InProcess()
    pipeline_ms: list[float] = []
    stages: list[dict[str, float]] = []
    cosine = 1.0
    for round_ in range(rounds + 10):
        photo = photos[round_ % len(photos)]
        prompt = photo.items[0].product_type
        start = time.perf_counter()
        answer = client.embed_images(photo.jpeg, prompt)
        took_ms = 1e3 * (time.perf_counter() - start)
        embedding, took = here.embed(photo.jpeg, prompt)
        cosine = min(cosine, float((embedding * answer.embedding).sum()))
        if round_ >= 10:  # the first ones warm up
            pipeline_ms.append(took_ms)
            stages.append(took)
    medians = {name: statistics.median(stage[name] for stage in stages) for name in stages[0]}
    graphs_ms = statistics.median(sum(stage[name] for name in GRAPHS) for stage in stages)
    pipeline = statistics.median(pipeline_ms)
    return {
        "rounds": rounds,
        "pipeline_ms": pipeline,
        "graphs_ms": graphs_ms,
        "difference_ms": pipeline - graphs_ms,
        "ratio": pipeline / graphs_ms,
        "stages_ms": medians,
        "cosine_min": cosine,
    }


def show(report: dict[str, Any]) -> None:
    """Print the medians as a table."""
    table = Table(title=f"One image at a time, medians of {report['rounds']} rounds")
    table.add_column("")
    table.add_column("ms", justify="right")
    table.add_row("product_image, served", f"{report['pipeline_ms']:.1f}")
    table.add_row("its graphs, in one process", f"{report['graphs_ms']:.1f}")
    table.add_row("difference", f"{report['difference_ms']:.1f}", end_section=True)
    for name, took in report["stages_ms"].items():
        table.add_row(f"{name}, in this process", f"{took:.2f}")
    Console().print(table)


def main() -> None:
    parser = parser_of("latency", __doc__)
    parser.add_argument("--rounds", type=int, default=200, help="images to send (%(default)s)")
    args = parser.parse_args()
    with served(args.url) as url, Client(url) as client:
        report = run(client, args.rounds)
    show(report)
    keep(report, args.json)


if __name__ == "__main__":
    main()
