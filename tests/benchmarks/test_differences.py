"""Each difference between two versions' answers is measured and compared with its limit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.differences import Answers, Limits, compare, nearest, neighbours, overlaps

N, D = 200, 16
NEIGHBOURS = ["neighbours photo to photos", "neighbours text to photos"]


def units(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, D))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def noisy(rows: np.ndarray, amount: float) -> np.ndarray:
    rows = rows + amount * np.random.default_rng(9).normal(size=rows.shape) / np.sqrt(D)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def rotated(rows: np.ndarray) -> np.ndarray:
    """The same rows in another space: every cosine among them stays the same."""
    return np.asarray(rows @ np.linalg.qr(np.random.default_rng(3).normal(size=(D, D)))[0])


OLD = Answers(
    embedding=units(N, 0),
    box_xyxy=np.tile([10.0, 10, 50, 50], (N, 1)),
    score=np.full(N, 0.5),
    status=np.zeros(N, np.int32),
    whole=units(N, 1),
    text=units(20, 2),
    seconds=np.full(N, 0.03),
)
OTHER_SPACE = {"embedding": rotated(OLD.embedding), "whole": rotated(OLD.whole), "text": rotated(OLD.text)}


def failures(
    new: Answers, old: Answers = OLD, same_encoder: bool = True, min_overlap: float | None = None
) -> list[str]:
    figures = compare(old, new, same_encoder, Limits(min_overlap=min_overlap))
    return [figure.name for figure in figures if not figure.accepted]


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        pytest.param({}, [], id="no change"),
        pytest.param({"embedding": noisy(OLD.embedding, 0.05)}, [], id="rounding"),
        pytest.param({"embedding": noisy(OLD.embedding, 0.5)}, ["cosine product_image"], id="noise"),
        pytest.param({"whole": units(N, 5)}, ["cosine whole_image"], id="other whole images"),
        pytest.param({"text": units(20, 5)}, ["cosine product_text"], id="other texts"),
        pytest.param({"status": np.arange(N) % 20 == 0}, ["changed status"], id="a twentieth is not grounded"),
        pytest.param({"box_xyxy": np.tile([10.0, 10, 50, 40], (N, 1))}, ["box IoU"], id="smaller boxes"),
        pytest.param({"score": np.full(N, 0.4)}, ["score shift"], id="lower scores"),
        pytest.param({"seconds": np.full(N, 0.06)}, ["median latency"], id="slower"),
    ],
)
def test_each_figure_has_its_limit(change: dict[str, Any], failed: list[str]) -> None:
    assert failures(replace(OLD, **change)) == failed


def test_another_encoder_is_judged_by_neighbours_only() -> None:
    new = replace(OLD, **OTHER_SPACE)
    assert "cosine product_image" in failures(new)
    assert failures(new, same_encoder=False, min_overlap=0.3) == []
    other_neighbours = replace(new, embedding=units(N, 7))
    assert failures(other_neighbours, same_encoder=False, min_overlap=0.3) == NEIGHBOURS


def test_another_encoder_must_find_photos_by_their_texts() -> None:
    old = replace(OLD, text=OLD.embedding)
    lost = old.text.copy()
    lost[:30] = lost[30:60]
    new = replace(old, **OTHER_SPACE)
    assert failures(replace(new, text=rotated(old.text)), old, same_encoder=False) == []
    assert failures(replace(new, text=rotated(lost)), old, same_encoder=False) == ["own photo found first"]


def test_a_comparison_without_a_decoded_photo_fails() -> None:
    nothing = replace(OLD, status=np.full(N, 2), embedding=np.zeros((N, D)), whole=np.zeros((N, D)))
    assert {"cosine product_image", "score shift"} <= set(failures(nothing, nothing))
    failed = failures(nothing, nothing, same_encoder=False, min_overlap=0.1)
    assert {"neighbours photo to photos", "score shift"} <= set(failed)


def test_changed_statuses_are_listed() -> None:
    figures = compare(OLD, replace(OLD, status=np.arange(N) < 3), True, Limits())
    lines = [figure.text.split() for figure in figures if "->" in figure.text]
    assert lines == [["197", "grounded", "->", "grounded"], ["3", "grounded", "->", "whole_image"]]


def test_neighbours_do_not_include_the_photo_itself() -> None:
    line = np.array([[1.0, 0], [0.9, 0.1], [0, 1.0]])
    assert neighbours(line)[:, 0].tolist() == [1, 0, 1]
    assert nearest(line[:1], line).tolist() == [[0, 1, 2]]
    assert overlaps(np.array([[1, 2]]), np.array([[2, 3]])) == 0.5
