"""The figures of the retrieval benchmark and of its ablation, on answers made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import ablation
from benchmarks.photos import draw_scenes
from benchmarks.retrieval import Answers, draw_absent, measure
from benchmarks.target import served
from training.catalogue.items import TRAINED_TYPES, draw_item
from training.catalogue.products import REGISTRY
from training.texts import EVALUATION_WORDS
from vlclip import Client


def test_measure_a_fallback_is_no_box_however_large_it_is() -> None:
    items = [draw_item(np.random.default_rng(i)) for i in range(4)]
    box = np.array([[0, 0, 10, 10]] * 4, float)
    eye = np.eye(4)
    score = np.array([[0.9, 0.1, 0.3], [0.8, 0.3, 0.2], [0.7, 0.1, 0.8], [0.1, 0.0, 0.5]])
    answers = Answers(
        items, box, box, score, (score < 0.4).astype(int), grounded=eye, whole=eye[[1, 0, 3, 2]], text=eye
    )
    figures = measure(answers)
    assert figures["iou50"] == 0.75
    assert [figures[f"grounded_{name}"] for name in ("present", "absent", "unknown")] == [0.75, 0.0, 0.5]
    assert figures["auc_absent"] == pytest.approx((12 + 2 * 0.5 + 1) / 16)
    assert figures["auc_unknown"] == pytest.approx((4 + 3.5 + 3 + 0) / 16)
    assert figures["mrr_grounded"] == 1.0
    assert figures["mrr_whole"] < 0.5
    assert measure(answers, np.array([False, False, False, True]))["iou50"] == 0.0


def test_absent_types_are_not_in_the_scene_and_unknown_words_name_no_type() -> None:
    rng = np.random.default_rng(0)
    for photo in draw_scenes(3, 5):
        shown = {item.product_type for item in photo.items}
        drawn = {draw_absent(photo, rng) for _ in range(400)}
        assert drawn == {*TRAINED_TYPES} - shown
    assert len({*EVALUATION_WORDS}) >= 100
    names = {name for kind in REGISTRY.values() for name in (kind.name, *kind.synonyms)}
    assert not names & {*EVALUATION_WORDS}


@pytest.mark.parametrize(
    ("whole", "grounded", "enriched", "ordered"),
    [
        pytest.param([9, 9], [1, 9], [1, 1], True, id="each step adds to both figures"),
        pytest.param([9, 9], [4, 4], [4, 4], False, id="enriching adds nothing"),
        pytest.param([9, 9], [7, 7], [1, 1], False, id="grounding adds no hit"),
        pytest.param([9, 9], [1, 1], [4, 4], False, id="enriching is worse"),
    ],
)
def test_each_step_must_be_better_in_both_figures(
    whole: list[int], grounded: list[int], enriched: list[int], ordered: bool
) -> None:
    figures = {name: ablation.measure(np.array(rank)) for name, rank in (("whole", whole), ("grounded", grounded))}
    report = {"figures": {ablation.RAW: figures, ablation.ENRICHED: {"grounded": ablation.measure(np.array(enriched))}}}
    assert ablation.is_ordered(report) == ordered


def test_a_server_that_does_not_answer_is_named_without_a_traceback() -> None:
    with pytest.raises(SystemExit, match=r"error: product_text from localhost:9, .*make serve"), served("localhost:9"):
        Client("localhost:9", retry=None).embed_texts("mug")
