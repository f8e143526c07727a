"""The benchmark of the embedded index: its exact answers, its figures, and that it continues where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import index, index_report


def test_exact_answers_are_the_nearest_vectors_of_all_and_of_a_type() -> None:
    vectors, types = index.mixture(5, 200)
    queries, kinds = index.mixture(6, 3)
    cosine = queries @ vectors.T
    np.testing.assert_array_equal(index.exact(vectors, types, queries), np.argsort(-cosine, axis=1)[:, : index.TOP])
    [first, *_] = index.exact(vectors, types * 0 + kinds[0], queries, kinds)
    np.testing.assert_array_equal(first, np.argsort(-cosine[0])[: index.TOP])
    small = index.exact(vectors, types % 2, queries, kinds % 2)
    assert all((types[rows] % 2 == kind % 2).all() for rows, kind in zip(small, kinds, strict=True))


def test_a_size_is_measured_once_and_what_was_measured_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--queries", "20", "--seconds", "0.3", "--threads", "2", "--out", str(tmp_path)]
    index.main(["--sizes", "1000", *places])
    report = json.loads((tmp_path / "index.json").read_text())
    assert [(run["vectors"], run["int8"], run["done"]) for run in report["runs"]] == [
        (1000, False, True),
        (1000, True, True),
    ]
    for run in report["runs"]:
        assert run["search"]["recall"] == run["filtered"]["recall"] == 1
        assert run["changes"]["count_is_right"]
        assert run["build"]["disk"] > 1000 * index.DIMENSION * 4
        assert 0 < run["memory_of_build"]["own"] < run["memory_of_build"]["mapped_too"]
    assert (tmp_path / "index.png").exists()
    assert "| 1,000 | 1,000 INT8 |" in (tmp_path / "index.md").read_text()
    report["runs"] = report["runs"][:1]
    (tmp_path / "index.json").write_text(json.dumps(report))
    capsys.readouterr()
    index.main(["--sizes", "1000", *places])
    assert capsys.readouterr().out.startswith("measuring 1,000 vectors, INT8 …")
    assert json.loads((tmp_path / "index.json").read_text())["runs"][0] == report["runs"][0]


def test_a_run_that_was_cut_off_has_a_table() -> None:
    run = {"vectors": 10_000, "int8": False, "build": {"write_s": 1.4, "optimize_s": 2.0, "disk": 5e9}}
    table = index_report.table({"runs": [run]})
    assert "| build, s | 3 |" in table
    assert "| recall@10 |  |" in table
