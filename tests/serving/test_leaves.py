"""The Python leaves and the onnxruntime stand-in, called as Triton calls them, with a fake of Triton's module."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import triton_python_backend_utils as pb_utils
from tokenizers import Encoding, Tokenizer

from serving.admission import Admission
from serving.backends.onnxruntime import model as onnxruntime
from serving.decode import model as decode
from serving.metrics import Metrics
from serving.tokenize import model as tokenize
from tests import toys
from tests.fake_triton import MetricFamily, published
from tests.pictures import encode, picture
from tests.serving.test_admission import after
from tests.serving.test_admission import metrics as triton_metrics

SCORES = np.array([[0.9], [0.0], [0.0], [0.5], [0.7]], np.float32)
STATUSES = np.array([[0], [1], [2], [9], [0]], np.int32)
"""9 is no status: only a caller of one leaf can send it, and it is not counted."""
PHOTOS = [encode(picture(height, 100), "JPEG") for height in (100, 500)]


@pytest.fixture(autouse=True)
def no_metrics() -> None:
    MetricFamily.published.clear()


@pytest.fixture
def overloaded() -> Admission:
    """Accepts one request, and no other until it reads metrics again."""
    return after(triton_metrics(detect=(0, 10, 90)))


def args_of(folder: Path, input_name: str = "", **parameters: str) -> dict[str, str]:
    """What Triton passes to ``initialize`` for version 1 of the model in ``folder``."""
    values = {name: {"string_value": value} for name, value in parameters.items()}
    return {
        "model_config": json.dumps({"input": [{"name": input_name}], "parameters": values}),
        "model_repository": str(folder),
        "model_version": "1",
        "model_instance_kind": "CPU",
        "model_instance_device_id": "0",
    }


def request(*wanted: str, **inputs: npt.NDArray[Any]) -> pb_utils.InferenceRequest:
    return pb_utils.InferenceRequest("leaf", wanted, [pb_utils.Tensor(*item) for item in inputs.items()])


def column(*values: bytes) -> npt.NDArray[Any]:
    return np.array([[value] for value in values], object)


def outputs(response: pb_utils.InferenceResponse) -> dict[str, npt.NDArray[Any]]:
    assert not response.has_error(), response.error().message()
    return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}


def is_refusal(response: pb_utils.InferenceResponse) -> bool:
    return response.has_error() and response.error().code() == pb_utils.TritonError.UNAVAILABLE


def test_metrics_are_added_up_under_their_labels() -> None:
    metrics = Metrics("test_", {"cats": ("counter", "Cats"), "size": ("histogram", "Sizes")}, {"size": [1, 2]}, of="x")
    metrics.add("cats", 0, colour="red")
    for number in (1, 2, 3):
        metrics.add("cats", number, colour="red")
        metrics.observe("size", number)
    metrics.add("cats")
    metrics.close()
    red = published("test_cats", of="x", colour="red", pid=str(os.getpid()))
    assert (sum(red), sum(published("test_cats"))) == (6, 7)
    assert published("test_size", of="x") == [1, 2, 3]


@pytest.mark.parametrize("ladder", [{}, {"batch_ladder": "1 4"}], ids=["plain", "ladder"])
def test_the_stand_in_counts_where_a_config_says_so(tmp_path: Path, ladder: dict[str, str]) -> None:
    graph = "(float[B,1] SCORE, int32[B,1] CROPPED) => (int32[B,1] STATUS, float[B,1] OTHER) {\n"
    graph += "STATUS = Identity(CROPPED)\nOTHER = Identity(SCORE)\n}"
    (tmp_path / "1").mkdir()
    onnx.save(toys.to_onnx("crop", graph), tmp_path / "1" / "model.onnx")
    for counting in ({}, {"count_grounding": "yes"}):
        leaf = onnxruntime.TritonPythonModel()
        leaf.initialize(args_of(tmp_path, **ladder, **counting))
        requests = [
            request("STATUS", SCORE=SCORES[:2], CROPPED=STATUSES[:2]),
            request("OTHER", SCORE=SCORES, CROPPED=STATUSES),
            request("STATUS", SCORE=SCORES[2:], CROPPED=STATUSES[2:]),
        ]
        first, other, last = (outputs(response) for response in leaf.execute(requests))
        np.testing.assert_array_equal(np.concatenate([first["STATUS"], last["STATUS"]]), STATUSES)
        np.testing.assert_array_equal(other["OTHER"], SCORES)
        leaf.finalize()
        assert counting or not MetricFamily.published
    names = ("grounded", "whole_image", "not_an_image", "too_large")
    found = [published("vlclip_grounding_images_total", status=name) for name in names]
    assert [sum(values) for values in found] == [2, 1, 1, 0]
    assert all(found), "a series begins at 0"
    assert published("vlclip_grounding_score") == SCORES[[0, 1, 4], 0].tolist()


def test_the_stand_in_fails_only_requests_that_cannot_run(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    onnx.save(
        toys.to_onnx("sum", "(float[B,2] X) => (float[B,2] Y) {\nY = Add(X, X)\n}"), tmp_path / "1" / "model.onnx"
    )
    leaf = onnxruntime.TritonPythonModel()
    leaf.initialize(args_of(tmp_path))
    good, bad = np.ones((2, 2), np.float32), np.ones((1, 3), np.float32)
    first, wrong, last = leaf.execute([request("Y", X=good), request("Y", X=bad), request("Y", X=2 * good)])
    assert wrong.has_error()
    assert "InvalidArgument" in wrong.error().message()
    np.testing.assert_array_equal([outputs(first)["Y"], outputs(last)["Y"]], [2 * good, 4 * good])


def test_decode_draws_a_batch_on_canvases_of_one_size() -> None:
    leaf = decode.TritonPythonModel()
    leaf.initialize(args_of(Path(), canvases="448 768", max_bytes="1000000", max_pixels="64000000"))
    small, large = leaf.execute([request(IMAGE=column(PHOTOS[0], b"")), request(IMAGE=column(PHOTOS[1]))])
    assert outputs(small)["CANVAS"].shape == (2, 768, 768, 3)
    assert outputs(small)["DECODED"].tolist() == [[0], [2]]
    assert outputs(large)["SIZE"].tolist() == [[500, 100, 500, 100]]
    (alone,) = leaf.execute([request(IMAGE=column(PHOTOS[0]))])
    assert outputs(alone)["CANVAS"].shape == (1, 448, 448, 3)
    leaf.finalize()
    assert [sum(published("vlclip_decoded_images_total", result=one)) for one in ("decoded", "not_an_image")] == [3, 1]
    assert published("vlclip_decoded_pixels") == [100 * 100, 500 * 100, 100 * 100]


@pytest.fixture
def tokenizing(tmp_path: Path) -> tokenize.TritonPythonModel:
    """A leaf that reads 40 characters of a text and tells the encoder 16 words."""
    (tmp_path / "1").mkdir()
    toys.toy_tokenizer().save(str(tmp_path / "1" / "tokenizer.json"))
    leaf = tokenize.TritonPythonModel()
    leaf.initialize(args_of(tmp_path, "TEXT", max_characters="40"))
    return leaf


def test_tokenize_counts_and_refuses(tokenizing: tokenize.TritonPythonModel, overloaded: Admission) -> None:
    texts = column(b" mug \n", b"a lamp", b"a " * 20, b"\xff")
    (answer,) = tokenizing.execute([request(TEXT=texts)])
    assert outputs(answer)["TOKENS"][:, :3].tolist() == [[1, 0, 0], [2, 2, 0], [2, 2, 2], [2, 0, 0]]
    tokenizing.admission = overloaded
    ask = request(TEXT=column(b"mug"))
    enriched = request(TEXT=column(b"mug"), ENRICHED=np.zeros((1, 1), np.int32))
    accepted, refused, known = tokenizing.execute([ask, ask, enriched])
    assert not accepted.has_error()
    assert is_refusal(refused)
    assert not known.has_error(), "the agent has worked for it"
    tokenizing.finalize()
    assert sum(published("vlclip_truncated_texts_total", input="text")) == 1
    assert published("vlclip_text_tokens", input="text") == [1, 2, 16, 1, 1, 1]


@pytest.mark.parametrize(
    ("text", "is_truncated"),
    [
        pytest.param("", False, id="empty"),
        pytest.param("mug " * 10, False, id="as many characters as are read"),
        pytest.param("mug " * 10 + "!", True, id="one more"),
        pytest.param("\N{TEAPOT}" * 40, False, id="characters of four bytes"),
        pytest.param("\N{TEAPOT}" * 41, True, id="one more of four bytes"),
        pytest.param("a " * 16, False, id="as many words as the encoder reads"),
        pytest.param("a " * 17, True, id="one more word"),
        pytest.param("a" * 1_000_000, True, id="a megabyte"),
    ],
)
def test_tokenize_reads_the_beginning_of_a_text(
    tokenizing: tokenize.TritonPythonModel, text: str, is_truncated: bool
) -> None:
    read: list[str] = []

    class Spy:
        def encode_batch_fast(self, texts: list[str]) -> list[Encoding]:
            read.extend(texts)
            return known.encode_batch_fast(texts)

    known, tokenizing.tokenizer = tokenizing.tokenizer, cast(Tokenizer, Spy())
    (answer,) = tokenizing.execute([request(TEXT=column(text.encode(), b"mug"))])
    assert outputs(answer)["TRUNCATED"].tolist() == [[is_truncated], [False]]
    assert read == [text[:40].strip(), "mug"]
    tokenizing.finalize()


def test_a_request_without_a_prompt_is_only_checked(tokenizing: tokenize.TritonPythonModel) -> None:
    (answer,) = tokenizing.execute([request(IMAGE=column(*PHOTOS))])
    np.testing.assert_array_equal(outputs(answer)["TRUNCATED"], [[False], [False]])
    tokenizing.finalize()
    assert not published("vlclip_text_tokens")


def test_the_stand_in_retries_the_requests_of_a_failed_batch_alone(tmp_path: Path) -> None:
    """A value can be wrong where all shapes are right: here an index outside of the table."""
    (tmp_path / "1").mkdir()
    graph = "(int64[B,1] X) => (float[B,1] Y) {\ntable = Constant<value_floats=[1.0,2.0]>()\nY = Gather(table, X)\n}"
    onnx.save(toys.to_onnx("gather", graph), tmp_path / "1" / "model.onnx")
    leaf = onnxruntime.TritonPythonModel()
    leaf.initialize(args_of(tmp_path))
    good, bad = np.ones((2, 1), np.int64), np.full((1, 1), 9)
    first, wrong, last = leaf.execute([request("Y", X=good), request("Y", X=bad), request("Y", X=0 * good)])
    assert wrong.has_error()
    np.testing.assert_array_equal([outputs(first)["Y"], outputs(last)["Y"]], [2.0 * good, 1.0 * good])
