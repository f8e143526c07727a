"""What serving costs: one image through the pipeline, beside the same graphs run in this process.

    python -m benchmarks.latency --json out.json

One client sends one image at a time to ``product_image``. In between, the graphs that the pipeline chains run here,
with the same runtime and threads, on the same image. The medians of both stand side by side; their difference is what
Triton, the hops between the models, decoding and tokenizing cost.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.in_process import GRAPHS, InProcess
from benchmarks.retrieval import draw_scenes
from benchmarks.target import keep, parser_of, served
from training.catalogue.items import TRAINED_TYPES
from vlclip import Client


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
        here_answer, took = here.embed([photo.jpeg], [prompt])
        cosine = min(cosine, float((here_answer["EMBEDDING"] * answer.embedding).sum()))
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
