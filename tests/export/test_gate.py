"""The gate lets nothing through that differs, and says what differs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import parser

from export import gate
from export.errors import ParityError
from serving.repository.specs import EMBEDDING, TOKENS, ModelSpec

UNIT = np.eye(4, dtype=np.float32)
TURNED = (UNIT + 0.01 * UNIT[::-1]) / np.sqrt(1 + 1e-4)
STATUS = np.array([[0], [1], [2], [3]], np.int32)
ZEROED = np.where(STATUS < 2, UNIT, 0).astype(np.float32)


def test_encode_image_with_zero_rows() -> None:
    inputs = {"STATUS": STATUS}
    figures = gate.check_encode_image(inputs, {"EMBEDDING": ZEROED}, {"EMBEDDING": ZEROED})
    assert figures["cosine_min"] == pytest.approx(1.0)
    assert gate.check_encode_image({"STATUS": STATUS[2:]}, {"EMBEDDING": ZEROED[2:]}, {"EMBEDDING": ZEROED[2:]}) == {}
    with pytest.raises(ParityError, match="not zero"):
        gate.check_encode_image(inputs, {"EMBEDDING": UNIT}, {"EMBEDDING": UNIT})


Arrays = dict[str, np.ndarray]
VECTORS = {"EMBEDDING": UNIT}
PROMPT = {"PROMPT": UNIT[:, None], "PROMPT_MASK": np.ones((4, 1), np.int32)}
PHRASE = {"PROMPT": np.array([[[3, 4], [0, 0]]], np.float32), "PROMPT_MASK": np.array([[1, 0]], np.int32)}
PIXELS = {"PIXELS": np.full((1, 3, 8, 8), 100 / 255), "STATUS": np.ones((1, 1), np.int32)}
ONE_PIXEL = (np.arange(64).reshape(8, 8) == 0) / 255
LOGITS = np.array([[[1.0, -np.inf], [0.2, -np.inf]]], np.float32)
PROPOSALS = {
    "FOREGROUND": np.array([[0.5, 2.0]], np.float32),
    "LOGITS": LOGITS,
    "BOXES": np.array([[[0.5, 0.5, 0.1, 0.1]]], np.float32),
}


def check_pixels(inputs: Arrays, came: Arrays, truth: Arrays) -> gate.Figures:
    return gate.pixel_check("fit", (1.0, 1.0, 1.0))(inputs, came, truth, gate.FP32)


def check_proposals(inputs: Arrays, came: Arrays, truth: Arrays) -> gate.Figures:
    return gate.check_proposals(came, truth)


DIFFERENT = {
    "turned": (gate.check_encode_text, VECTORS, "EMBEDDING", TURNED, "cosine"),
    "too long": (gate.check_encode_text, VECTORS, "EMBEDDING", UNIT * 1.1, "unit length"),
    "not a number": (gate.check_encode_text, VECTORS, "EMBEDDING", UNIT * np.nan, "cosine"),
    "mask": (gate.check_encode_prompt, PROMPT, "PROMPT_MASK", np.zeros((4, 1), np.int32), "PROMPT_MASK"),
    "phrase": (gate.check_encode_phrase, PHRASE, "PROMPT", PHRASE["PROMPT"] * 1.01, "relative difference"),
    "padding": (gate.check_encode_phrase, PHRASE, "PROMPT", PHRASE["PROMPT"] + 1, "not zero"),
    "mask of a phrase": (gate.check_encode_phrase, PHRASE, "PROMPT_MASK", np.ones((1, 2), np.int32), "PROMPT_MASK"),
    "one pixel": (check_pixels, PIXELS, "PIXELS", PIXELS["PIXELS"] + 2 * ONE_PIXEL, "grey levels is 2"),
    "every pixel": (check_pixels, PIXELS, "PIXELS", PIXELS["PIXELS"] + 1 / 255, "share"),
    "status": (check_pixels, PIXELS, "STATUS", np.zeros((1, 1), np.int32), "STATUS"),
    "foreground": (check_proposals, PROPOSALS, "FOREGROUND", PROPOSALS["FOREGROUND"] + 0.01, "FOREGROUND"),
    "logits": (check_proposals, PROPOSALS, "LOGITS", LOGITS + 0.01, "LOGITS"),
    "finite logits": (check_proposals, PROPOSALS, "LOGITS", np.nan_to_num(LOGITS, neginf=-1e30), "LOGITS"),
    "boxes": (check_proposals, PROPOSALS, "BOXES", PROPOSALS["BOXES"] * np.nan, "BOXES"),
}


@pytest.mark.parametrize(("check", "truth", "name", "came", "message"), DIFFERENT.values(), ids=DIFFERENT)
def test_only_equal_tensors_pass(
    check: Callable[[Arrays, Arrays, Arrays], gate.Figures], truth: Arrays, name: str, came: np.ndarray, message: str
) -> None:
    check({}, truth, truth)
    with pytest.raises(ParityError, match=message):
        check({}, {**truth, name: came}, truth)


def test_pixels_are_compared_with_pil() -> None:
    with pytest.raises(ParityError, match="PIL"):
        gate.check_against_pil("fit", PIXELS["PIXELS"], PIXELS["PIXELS"] + 1 / 255, (1.0, 1.0, 1.0))


CANDIDATES = {
    "BOXES": np.array([[[0, 0, 10, 10], [5, 5, 50, 50], [90, 0, 99, 9]]], np.float32),
    "SCORES": np.array([[0.5, 0.4999, 0.1]], np.float32),
}
DETECTED = {
    "the best": ((0, 0, 10, 10), 0.5, 1, None),
    "as good as the best": ((5, 5, 50, 50), 0.4999, 1, None),
    "a worse one": ((90, 0, 99, 9), 0.5, 1, "distance"),
    "another score": ((0, 0, 10, 10), 0.4, 1, "SCORE"),
    "an empty prompt": ((0, 0, 100, 80), 0.0, 0, None),
    "an empty prompt that found something": ((0, 0, 10, 10), 0.0, 0, "empty prompt"),
}


@pytest.mark.parametrize(("box", "score", "mask", "message"), DETECTED.values(), ids=DETECTED)
def test_detect(box: tuple[int, ...], score: float, mask: int, message: str | None) -> None:
    inputs = {"PROMPT_MASK": np.array([[mask]], np.int32), "SIZE": np.array([[80, 100, 80, 100]], np.int32)}
    came = {"CANVAS_BOX": np.array([box], np.float32), "SCORE": np.array([[score]], np.float32)}
    if message is None:
        gate.check_detect(inputs, came, CANDIDATES)
    else:
        with pytest.raises(ParityError, match=message):
            gate.check_detect(inputs, came, CANDIDATES)


def test_a_row_must_not_depend_on_its_batch() -> None:
    """A graph that mixes its rows is right for a batch of one only."""
    spec = ModelSpec((TOKENS,), (EMBEDDING,))
    mixing: onnx.ModelProto = parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 18]> g (int64[batch,4] TOKENS) => (float[batch,4] EMBEDDING) {
            x = Cast<to=1>(TOKENS)
            mean = ReduceMean<keepdims=1>(x)
            two = Constant<value_float=2.0>()
            twice = Mul(mean, two)
            shifted = Sub(x, twice)
            length = ReduceL2<keepdims=1>(shifted)
            EMBEDDING = Div(shifted, length)
        }"""
    )
    tokens = np.random.default_rng(0).integers(1, 9, (7, 4))
    run = gate.run_graph(mixing, spec)
    alone = {"EMBEDDING": np.concatenate([run({"TOKENS": row[None]})["EMBEDDING"] for row in tokens])}
    with pytest.raises(ParityError):
        gate.compare(run, {"TOKENS": tokens}, alone, gate.check_encode_text)


def test_every_row_runs_in_batches_of_each_size_and_each_batch_is_reported() -> None:
    tokens, steps = np.arange(5), list[str]()
    seen: list[list[int]] = []

    def run(inputs: gate.Arrays) -> gate.Arrays:
        seen.append(inputs["TOKENS"].tolist())
        return {"EMBEDDING": UNIT[: len(seen[-1])]}

    wanted = {"EMBEDDING": np.zeros((5, 4), np.float32)}

    def judge(inputs: gate.Arrays, actual: gate.Arrays, expected: gate.Arrays) -> gate.Figures:
        return {"rows_max": len(seen[-1])}

    figures = gate.compare(run, {"TOKENS": tokens}, wanted, judge, (1, 3), steps.append)
    assert seen == [[0], [1], [2], [3], [4], [0, 1, 2], [3, 4]]
    assert figures == {"rows_max": 2}
    assert steps[-2:] == ["row 3 of 5, 3 at once", "row 5 of 5, 3 at once"]


def test_tokenizer_that_differs() -> None:
    class Fake:
        def __init__(self, ids: list[int]):
            self.ids = ids

        def encode_batch(self, texts: list[str]) -> list[Fake]:
            return [self for _ in texts]

        def __call__(self, texts: list[str]) -> np.ndarray:
            return np.array([[1, 2, 3]])

    assert gate.check_tokenizer("tokenize", Fake([1, 2, 3]), Fake([]), ["mug"]) == {"texts_equal": 1.0}
    with pytest.raises(ParityError, match="'mug' gives"):
        gate.check_tokenizer("tokenize", Fake([1, 2, 4]), Fake([]), ["mug"])
