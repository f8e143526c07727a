"""The errors of the client, and their messages."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

import vlclip
from tests.client.conftest import FakeTriton

CODES: list[grpc.StatusCode] = list(grpc.StatusCode)
FAILURES = {code.name: code for code in CODES if code is not grpc.StatusCode.OK}


@pytest.mark.parametrize("code", FAILURES.values(), ids=list(FAILURES))
def test_every_grpc_code_is_mapped(triton: FakeTriton, code: grpc.StatusCode) -> None:
    triton.fail = code
    with vlclip.Client(triton.address, retry=None) as client, pytest.raises(vlclip.RequestError) as caught:
        client.embed_texts(["1"])
    error = caught.value
    assert type(error) is not vlclip.RequestError
    assert isinstance(error.__cause__, grpc.RpcError)
    assert all(part in str(error) for part in ("product_text", triton.address, code.name, "as the test wants it"))
    assert error.code is code
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.code) == (type(error), str(error), code)


def test_every_error_is_in_the_tree_and_exported() -> None:
    def tree(kind: type[Exception]) -> set[type[Exception]]:
        return {kind, *(below for child in kind.__subclasses__() for below in tree(child))}

    for kind in tree(vlclip.VlclipError):
        assert kind.__name__ in (vlclip.errors.__doc__ or "")
        assert getattr(vlclip, kind.__name__) is kind


def test_a_server_without_the_pipeline(triton: FakeTriton, client: vlclip.Client) -> None:
    triton.fail = grpc.StatusCode.NOT_FOUND
    with pytest.raises(vlclip.PipelineNotFoundError, match="`make models`"):
        client.ground([b"1"], "mug")


def unread() -> Iterator[str]:
    raise AssertionError("this must not be read")
    yield


def deep(depth: int) -> dict[str, Any]:
    product: dict[str, Any] = {}
    for _ in range(depth):
        product = {"of": product}
    return product


INVALID_INPUT: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a type, no image": (lambda c: c.embed_images([], ["mug"]), "got 0 images and 1 product types"),
    "too few types": (lambda c: c.embed_images([b"1", b"2"], ["mug"]), "got 2 images and 1 product types"),
    "too many types": (lambda c: c.ground(b"1", ["mug", "cup"]), "got 1 images and 2 product types"),
    "iterator, too few": (lambda c: c.ground(iter([b"1", b"2"]), ["mug"]), "got more than 1 images and 1 product type"),
    "iterators, too many": (lambda c: c.ground(iter([b"1"]), iter("ab")), "got 1 images and more than 1 product types"),
    "a number": (lambda c: c.embed_whole_images(5), "images: expected one item or an iterable"),
    "a dict of images": (
        lambda c: c.embed_whole_images({}),
        "images: expected one item or an iterable of them, got dict",
    ),
    "bytes as text": (lambda c: c.embed_texts([b"mug"]), "text 0: expected a str, got bytes"),
    "bytes as texts": (
        lambda c: c.embed_texts(b"mug"),
        "texts: expected one item or an iterable of them, got bytes.",
    ),
    "bytes as type": (
        lambda c: c.ground(b"1", b"mug"),
        "product types: expected one item or an iterable of them, got",
    ),
    "a product as texts": (
        lambda c: c.embed_texts({"title": "x"}),
        "texts: expected one item or an iterable of them",
    ),
    "a text as products": (lambda c: c.enrich("mug"), "products: expected one item or an iterable of them, got str"),
    "an array without axes": (
        lambda c: c.embed_texts(np.array("mug")),
        "texts: expected one item or an iterable of",
    ),
    "other errors": (
        lambda c: c.embed_images(b"1", "mug", errors="ignore"),
        'errors: expected "status" or "raise", got \'i',
    ),
    "of a stream": (
        lambda c: c.stream.ground(b"1", "mug", errors=None),
        'errors: expected "status" or "raise", got None',
    ),
    "lone surrogate": (lambda c: c.embed_texts(["\ud800"]), "text 0: expected text that UTF-8"),
    "None as type": (lambda c: c.ground([b"1"], [None]), "product type 0: expected a str, got None"),
    "a deep product": (lambda c: c.enrich(deep(100_000)), "product 0: expected values that JSON can represent"),
    "no product type": (lambda c: c.ground([b"1"], None), "product types: expected one item or"),
    "time-out of 0": (lambda c: c.embed_texts(unread(), timeout=0), "timeout: expected request as a number"),
}


@pytest.mark.parametrize(("call", "message"), INVALID_INPUT.values(), ids=list(INVALID_INPUT))
def test_invalid_input_is_refused_before_anything_is_sent(
    triton: FakeTriton, client: vlclip.Client, call: Callable[[Any], Any], message: str
) -> None:
    with pytest.raises(vlclip.InvalidInputError) as caught:
        call(client)
    assert message in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert triton.infer_requests == []


def wrong_type(response: Any) -> None:
    response.outputs[0].datatype = "FP16"


def too_few_rows(response: Any) -> None:
    response.outputs[0].shape[0] = 1


def truncated(response: Any) -> None:
    response.raw_output_contents[0] = response.raw_output_contents[0][:-1]


def missing(response: Any) -> None:
    del response.outputs[0], response.raw_output_contents[0]


def without_rows(response: Any) -> None:
    del response.outputs[0].shape[:]


@pytest.mark.parametrize("tamper", [wrong_type, too_few_rows, truncated, missing, without_rows])
@pytest.mark.parametrize(
    ("call", "expected"),
    [
        pytest.param(lambda c: c.embed_texts(["1", "2"]), r"expected EMBEDDING FP32 \[2, 'D'\], got", id="texts"),
        pytest.param(lambda c: c.ground([b"1", b"2"], "mug"), r"expected BOX FP32 \[2, 4\], got", id="ground"),
    ],
)
def test_responses_that_do_not_match_the_contract_are_refused(
    triton: FakeTriton,
    client: vlclip.Client,
    tamper: Callable[[Any], None],
    call: Callable[[vlclip.Client], Any],
    expected: str,
) -> None:
    triton.tamper = tamper
    with pytest.raises(vlclip.ContractError, match=expected):
        call(client)


def test_a_pipeline_without_batches_is_refused(triton: FakeTriton, client: vlclip.Client) -> None:
    triton.max_batch_size = 0
    with pytest.raises(vlclip.ContractError, match="its max_batch_size is 0"):
        client.embed_texts(["1"])


def test_use_after_close(triton: FakeTriton) -> None:
    client = vlclip.Client(triton.address)
    client.embed_texts("1")
    client.close()
    client.close()
    for use in (lambda: client.embed_texts("1"), lambda: client.embed_texts([]), client.health, client.__enter__):
        with pytest.raises(vlclip.ClosedError, match="create a new one"):
            use()
