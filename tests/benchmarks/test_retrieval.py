"""The figures of the retrieval benchmark on answers made by hand."""

from __future__ import annotations

import numpy as np

from benchmarks.retrieval import Answers, measure
from training.catalogue.items import draw_item


def test_measure_a_fallback_is_no_box_however_large_it_is() -> None:
    items = [draw_item(np.random.default_rng(i)) for i in range(4)]
    box = np.array([[0, 0, 10, 10]] * 4, float)
    eye = np.eye(4)
    answers = Answers(items, box, box, np.array([0, 0, 0, 1]), grounded=eye, whole=eye[[1, 0, 3, 2]], text=eye)
    figures = measure(answers)
    assert figures["iou50"] == 0.75
    assert figures["fallback_rate"] == 0.25
    assert figures["mrr_grounded"] == 1.0
    assert figures["mrr_whole"] < 0.5
    assert measure(answers, np.array([False, False, False, True]))["iou50"] == 0.0
