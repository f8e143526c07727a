"""What a large catalogue costs, from measured figures and stated assumptions: docs/scale.md.

    python -m benchmarks.scale --index build/index-benchmark/index.json --photos-per-second 5

``--index`` is the JSON of `python -m benchmarks.index`. Sizes on disk grow by the difference of its smallest and its
largest size; times and searches are those of its largest size, which is also the size of a shard.
``--photos-per-second`` is what one machine embeds, by a load test with the models that are used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.target import parser_of

PHOTOS = (10_000_000, 100_000_000, 1_000_000_000)


@dataclass(frozen=True)
class Assumptions:
    """What was not measured."""

    vectors: int = 2
    """Vectors of a photo: of its crop, and of its product's text."""
    unique: float = 1.0
    """Share of the photos that are no duplicates and must be embedded."""
    payload: int = 2000
    """Bytes of a photo's attributes and texts, on disk."""
    replicas: int = 2
    """Copies of each shard, in nodes that fail independently."""
    memory: float = 64e9 * 0.75
    """Bytes of a node of 64 GB that the index may use."""
    days: float = 1.0
    """Days that embedding the whole catalogue anew may take."""


@dataclass(frozen=True)
class Measured:
    """The figures of `benchmarks.index`, with FP32 or with INT8 vectors, at its largest size."""

    size: int
    dimension: int
    disk: float
    """Bytes of a vector on disk, with its graph and its payload."""
    build: float
    """Hours to build an index of ``size`` vectors."""
    per_second: float
    """Searches a second of an index of ``size`` vectors."""
    int8: bool

    @property
    def memory(self) -> float:
        """Bytes of a vector that should be in memory: all of its index; with INT8, all but the FP32 vectors."""
        return self.disk - (4 * self.dimension if self.int8 else 0)


def measured(report: Mapping[str, Any], *, int8: bool) -> Measured:
    """The figures of a report. Raises SystemExit if it has fewer than two sizes."""
    runs = sorted(
        (run for run in report["runs"] if run["int8"] == int8 and run.get("done")), key=lambda r: r["vectors"]
    )
    if len(runs) < 2:
        raise SystemExit(
            "error: expected at least two sizes in --index; run python -m benchmarks.index with more --sizes"
        )
    small, large = runs[0], runs[-1]
    return Measured(
        size=large["vectors"],
        dimension=report["dimension"],
        disk=(large["build"]["disk"] - small["build"]["disk"]) / (large["vectors"] - small["vectors"]),
        build=(large["build"]["write_s"] + large["build"]["optimize_s"]) / 3600,
        per_second=large["threads"]["per_second"],
        int8=int8,
    )


def costs(photos: int, index: Measured, per_second: float, given: Assumptions) -> dict[str, float]:
    """What ``photos`` cost; each formula is a row of docs/scale.md."""
    vectors = photos * given.vectors
    embedding = photos * given.unique / per_second / 3600
    memory = vectors * index.memory * given.replicas
    return {
        "hours of one machine to embed": embedding,
        "machines to embed within the days": math.ceil(embedding / (24 * given.days)),
        "shards": math.ceil(vectors / index.size),
        "hours of one machine to build": vectors / index.size * index.build,
        "disk of one copy, TB": (vectors * index.disk + photos * given.payload) / 1e12,
        "memory of all replicas, TB": memory / 1e12,
        "nodes": max(given.replicas, math.ceil(memory / given.memory)),
        "disk of one copy while a new version is built, TB": 2 * (vectors * index.disk + photos * given.payload) / 1e12,
    }


def table(report: Mapping[str, Any], per_second: float, given: Assumptions) -> str:
    """The costs of each number of photos, with FP32 and INT8 vectors, in Markdown."""
    both = [measured(report, int8=int8) for int8 in (False, True)]
    names = [f"{photos:,}{' INT8' if index.int8 else ''}" for photos in PHOTOS for index in both]
    found = [costs(photos, index, per_second, given) for photos in PHOTOS for index in both]
    lines = [f"| photos | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for row in found[0]:
        lines.append(f"| {row} | {' | '.join(_short(one[row]) for one in found)} |")
    return "\n".join(lines) + "\n"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 else f"{value:.2g}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("scale", __doc__, figures=False, url=False)
    parser.add_argument("--index", type=Path, required=True, metavar="FILE", help="index.json of benchmarks.index")
    parser.add_argument("--photos-per-second", type=float, required=True, help="photos that a machine embeds a second")
    args = parser.parse_args(arguments)
    report = json.loads(args.index.read_text())
    for int8 in (False, True):
        one = measured(report, int8=int8)
        name = "INT8" if int8 else "FP32"
        print(f"{name}: {one.disk:.0f} bytes of disk a vector, {one.memory:.0f} in memory; {one.size:,} vectors in "
              f"{one.build:.2g} hours and {one.per_second:.0f} searches/s")  # fmt: skip
    print(f"\n{table(report, args.photos_per_second, Assumptions())}")


if __name__ == "__main__":
    main()
