"""The costs of a large catalogue, on figures whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scale
from benchmarks.scale import Assumptions, costs, measured


def run(vectors: int, disk: int, *, int8: bool = False) -> dict[str, Any]:
    build = {"write_s": 1000.0, "optimize_s": 2600.0, "disk": disk}
    return {"vectors": vectors, "int8": int8, "build": build, "threads": {"per_second": 500.0}, "done": True}


REPORT: dict[str, Any] = {
    "dimension": 512,
    "runs": [
        *(run(vectors, 10**8 + 3000 * vectors) for vectors in (1_000_000, 10_000, 100_000)),
        *(run(vectors, 10**8 + 3500 * vectors, int8=True) for vectors in (10_000, 1_000_000)),
        {"vectors": 2_000_000, "int8": False},
    ],
}


def test_costs_are_those_of_the_largest_size_and_of_what_is_assumed() -> None:
    plain, int8 = (measured(REPORT, int8=int8) for int8 in (False, True))
    assert (plain.size, plain.disk, plain.build) == (1_000_000, 3000, 1)
    assert (plain.memory, int8.memory) == (3000, 3500 - 2048)
    given = Assumptions(vectors=2, unique=0.5, payload=1000, replicas=3, memory=50e9, days=2)
    assert costs(100_000_000, plain, 100, given) == pytest.approx({
        "hours of one machine to embed": 50e6 / 100 / 3600,
        "machines to embed within the days": 3,
        "shards": 200,
        "hours of one machine to build": 200,
        "disk of one copy, TB": 0.7,
        "memory of all replicas, TB": 1.8,
        "nodes": 36,
        "disk of one copy while a new version is built, TB": 1.4,
    })  # fmt: skip
    assert costs(1000, plain, 100, given)["nodes"] == 3


def test_the_command_prints_a_table_and_needs_two_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "index.json"
    file.write_text(json.dumps(REPORT))
    scale.main(["--index", str(file), "--photos-per-second", "5"])
    assert "| shards | 20 | 20 | 200 | 200 | 2,000 | 2,000 |" in capsys.readouterr().out
    file.write_text(json.dumps({"dimension": 512, "runs": REPORT["runs"][:1]}))
    with pytest.raises(SystemExit, match="expected at least two sizes"):
        scale.main(["--index", str(file), "--photos-per-second", "5"])
