"""How far the answers of two versions of the models differ, and whether each difference is within its limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.judge import box_iou
from search.measures import TOP, hits, ranks
from vlclip import Status

INFINITY = float("inf")


@dataclass(frozen=True)
class Answers:
    """What one version returned for N photos and M texts."""

    embedding: np.ndarray  # [N, D]
    box_xyxy: np.ndarray  # [N, 4]
    score: np.ndarray  # [N]
    status: np.ndarray  # [N]
    whole: np.ndarray  # [N, D]
    text: np.ndarray  # [M, D]
    seconds: np.ndarray  # [N]


def limit(default: float | None, meaning: str) -> Any:
    return field(default=default, metadata={"help": meaning})


@dataclass(frozen=True)
class Limits:
    """How far a candidate may differ from the served version."""

    min_cosine: float = limit(0.98, "cosine of the embeddings with the served ones, at the 1st percentile")
    max_changed_status: float = limit(0.02, "share of the photos whose status changed")
    min_iou: float = limit(0.9, "mean IoU of the boxes")
    max_score_shift: float = limit(0.05, "mean change of the scores")
    min_overlap: float | None = limit(None, f"share of the {TOP} nearest photos that both versions find")
    max_lost_recall: float = limit(0.1, "share of the texts that no longer find their own photo first")
    max_latency: float = limit(1.5, "median latency, as a multiple of the served version's")


@dataclass(frozen=True)
class Figure:
    """One line of the comparison, accepted if ``value`` is between ``low`` and ``high``."""

    name: str
    text: str
    value: float = 0.0
    low: float = -INFINITY
    high: float = INFINITY

    @property
    def limit(self) -> str:
        return f">= {self.low:g}" if self.low > -INFINITY else f"<= {self.high:g}" if self.high < INFINITY else ""

    @property
    def accepted(self) -> bool:
        """Figures without a limit are accepted; NaN, which means that nothing could be measured, is not."""
        return not self.limit or bool(self.low <= self.value <= self.high)


def compare(old: Answers, new: Answers, same_encoder: bool, limits: Limits) -> Iterator[Figure]:
    """The figures of two versions' answers to the same photos and texts.

    Embeddings of different encoders are compared by their neighbours only, each within its own space.
    """
    decoded = (old.status < Status.NOT_AN_IMAGE) & (new.status < Status.NOT_AN_IMAGE)
    if same_encoder:
        yield _cosine("product_image", old.embedding[decoded], new.embedding[decoded], limits)
        yield _cosine("whole_image", old.whole[decoded], new.whole[decoded], limits)
        yield _cosine("product_text", old.text, new.text, limits)
    photos = neighbours(old.embedding[decoded]), neighbours(new.embedding[decoded])
    yield _overlap("neighbours photo to photos", *photos, limits)
    texts = nearest(old.text, old.embedding[decoded]), nearest(new.text, new.embedding[decoded])
    yield _overlap("neighbours text to photos", *texts, limits)
    if len(old.text) == len(old.embedding):  # every photo has its own text
        before, after = (float(hits(ranks(answers.text, answers.embedding), 1).mean()) for answers in (old, new))
        text = f"{after:.2f} of the texts, before {before:.2f}"
        yield Figure("own photo found first", text, before - after, high=limits.max_lost_recall)

    changed = float((old.status != new.status).mean())
    yield Figure("changed status", f"{changed:.3f} of the photos", changed, high=limits.max_changed_status)
    for line in changes(old.status, new.status):
        yield Figure("", line)
    both = (old.status == Status.GROUNDED) & (new.status == Status.GROUNDED)
    if both.any():
        iou = box_iou(old.box_xyxy[both], new.box_xyxy[both])
        text = f"min {iou.min():.3f}  p50 {np.median(iou):.3f}  mean {iou.mean():.3f}"
        yield Figure("box IoU", text, float(iou.mean()), low=limits.min_iou)
    shift = new.score[decoded] - old.score[decoded] if decoded.any() else np.array([np.nan])
    text = f"mean {shift.mean():+.4f}  largest {np.abs(shift).max():.4f}"
    yield Figure("score shift", text, float(abs(shift.mean())), high=limits.max_score_shift)
    before, after = float(np.median(old.seconds)), float(np.median(new.seconds))
    text = f"{1000 * after:.1f} ms, before {1000 * before:.1f} ms, {after / before:.2f} times"
    yield Figure("median latency", text, after / before, high=limits.max_latency)


def _cosine(name: str, old: np.ndarray, new: np.ndarray, limits: Limits) -> Figure:
    """The cosines of N pairs of embeddings [N, D], judged by their 1st percentile."""
    cosine = (old * new).sum(axis=1) if len(old) else np.array([np.nan])
    low, p1, p50 = np.quantile(cosine, (0, 0.01, 0.5))
    text = f"min {low:.4f}  p1 {p1:.4f}  p50 {p50:.4f}  mean {cosine.mean():.4f}"
    return Figure(f"cosine {name}", text, float(p1), low=limits.min_cosine)


def _overlap(name: str, old: np.ndarray, new: np.ndarray, limits: Limits) -> Figure:
    overlap = overlaps(old, new)
    text = f"{overlap:.2f} of the first {old.shape[1]} are the same"
    return Figure(name, text, overlap, low=-INFINITY if limits.min_overlap is None else limits.min_overlap)


def nearest(queries: np.ndarray, photos: np.ndarray) -> np.ndarray:
    """Rows of the photos [N, D] nearest to each query [M, D], the nearest first: [M, TOP], or fewer if N is smaller."""
    return np.argsort(-(queries @ photos.T), axis=1, kind="stable")[:, :TOP]


def neighbours(photos: np.ndarray) -> np.ndarray:
    """Rows of the other photos nearest to each photo [N, D]: [N, TOP], or fewer if N is smaller."""
    cosine = photos @ photos.T
    np.fill_diagonal(cosine, -np.inf)
    return np.argsort(-cosine, axis=1, kind="stable")[:, : min(TOP, max(len(photos) - 1, 0))]


def overlaps(a: np.ndarray, b: np.ndarray) -> float:
    """The share of the members of each row [N, K] that are in both; NaN if there are none."""
    if a.size == 0:
        return float("nan")
    return float(np.mean([len(set(one) & set(other)) / a.shape[1] for one, other in zip(a, b, strict=True)]))


def changes(old: np.ndarray, new: np.ndarray) -> list[str]:
    """How many photos went from which status [N] to which, as lines."""
    pairs, counts = np.unique(np.stack([old, new], axis=1), axis=0, return_counts=True)
    names = {status.value: status.name.lower() for status in Status}
    return [f"{count:6d}  {names[int(a)]} -> {names[int(b)]}" for (a, b), count in zip(pairs, counts, strict=True)]
