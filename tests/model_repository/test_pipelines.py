"""The public contract, tested on a running server over gRPC and HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from serving.repository.specs import PIPELINES
from serving.server.server import Server
from tests.asking import ask_grpc, ask_http
from tests.pictures import PHOTO, bad_files, encode, good_files, picture

Ask = Callable[..., dict[str, np.ndarray]]
DTYPES = {"FP32": np.float32, "INT32": np.int32, "BOOL": np.bool_, "BYTES": np.object_}


@pytest.fixture(scope="session", params=["grpc", "http"])
def ask(request: pytest.FixtureRequest, server: Server) -> Ask:
    def over_grpc(model: str, **inputs: Any) -> dict[str, np.ndarray]:
        return ask_grpc(server.grpc_url, model, **inputs)

    def over_http(model: str, **inputs: Any) -> dict[str, np.ndarray]:
        return ask_http(server.http_url, model, **inputs)

    return over_grpc if request.param == "grpc" else over_http


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cosine of every row of ``a`` with the same row of ``b``; embeddings have unit length."""
    return np.asarray((a * b).sum(axis=1))


@pytest.mark.parametrize("name", PIPELINES)
def test_answers_have_the_names_dtypes_and_shapes_of_the_contract(ask: Ask, name: str) -> None:
    values = {
        "IMAGE": [PHOTO] * 3,
        "PRODUCT_TYPE": [b"mug", b"", b"lamp"],
        "TEXT": [b"a red mug"] * 3,
        "PRODUCT": [b'{"title": "a red mug"}', b"", b"{}"],
    }
    answer = ask(name, **{tensor.name: values[tensor.name] for tensor in PIPELINES[name].inputs})
    assert set(answer) == {tensor.name for tensor in PIPELINES[name].outputs}
    for tensor in PIPELINES[name].outputs:
        array = answer[tensor.name]
        assert array.dtype == DTYPES[tensor.dtype]
        assert array.shape == (3, array.shape[1] if tensor.shape == ("D",) else tensor.shape[0])
    if "EMBEDDING" in answer:
        np.testing.assert_allclose(np.linalg.norm(answer["EMBEDDING"], axis=1), 1, atol=1e-4)


def test_bad_images_affect_only_their_own_rows(ask: Ask) -> None:
    places = dict(zip(range(0, 32, 2), bad_files().values(), strict=False))
    files = [places[i][0] if i in places else encode(picture(seed=i), "JPEG") for i in range(32)]
    types = [b"mug" if i % 3 else b"table lamp" for i in range(32)]
    good = [i for i in range(32) if i not in places]

    batch = ask("product_image", IMAGE=files, PRODUCT_TYPE=types)
    assert batch["STATUS"][list(places), 0].tolist() == [status for _, status in places.values()]
    assert not batch["EMBEDDING"][list(places)].any()
    assert not batch["BOX"][list(places)].any()
    assert set(batch["STATUS"][good, 0]) <= {0, 1}
    alone = ask("product_image", IMAGE=[files[i] for i in good], PRODUCT_TYPE=[types[i] for i in good])
    assert cosines(batch["EMBEDDING"][good], alone["EMBEDDING"]).min() >= 0.9999


@pytest.mark.parametrize("size", [1, 7, 32])
def test_row_of_a_batch_equals_the_image_alone(ask: Ask, size: int) -> None:
    files = [encode(picture(90 + 7 * i, 120, seed=i), "JPEG") for i in range(size)]
    types = [f"product number {i}".encode() if i % 5 else b"" for i in range(size)]
    batch = ask("product_image", IMAGE=files, PRODUCT_TYPE=types)
    for i in {0, size // 2, size - 1}:
        alone = ask("product_image", IMAGE=files[i : i + 1], PRODUCT_TYPE=types[i : i + 1])
        assert alone["STATUS"][0] == batch["STATUS"][i]
        assert cosines(alone["EMBEDDING"], batch["EMBEDDING"][i : i + 1])[0] >= 0.9999
        np.testing.assert_allclose(alone["BOX"][0], batch["BOX"][i], atol=0.5)


def test_all_kinds_of_files_are_read(ask: Ask) -> None:
    files = good_files()
    answer = ask("whole_image", IMAGE=list(files.values()))
    assert dict(zip(files, answer["STATUS"][:, 0], strict=True)) == dict.fromkeys(files, 1)
    same = dict(zip(files, answer["EMBEDDING"], strict=True))
    for kind in ("JPEG turned by EXIF", "PNG turned by EXIF", "PNG animated", "WebP lossless", "WebP animated"):
        assert same[kind] @ same["PNG"] > 0.98, kind
    assert same["JPEG in Display P3"] @ same["PNG"] > 0.99


@pytest.mark.parametrize(
    "prompt",
    [b"x" * 10_000, b"mug " * 2_500, "größe Ωμέγα 杯子 🫖 كوب".encode(), b"\xff\xfe\x00bad", b"<|endoftext|>", b"a\0b"],
    ids=["10,000 letters", "2,500 words", "not ASCII", "not UTF-8", "a special token", "a zero byte"],
)
def test_any_prompt_and_text_is_answered(ask: Ask, prompt: bytes) -> None:
    grounded = ask("product_image", IMAGE=[PHOTO] * 2, PRODUCT_TYPE=[prompt, b"mug"])
    alone = ask("product_image", IMAGE=[PHOTO], PRODUCT_TYPE=[b"mug"])
    assert set(grounded["STATUS"][:, 0]) <= {0, 1}
    assert cosines(grounded["EMBEDDING"][1:], alone["EMBEDDING"])[0] >= 0.9999
    assert np.isclose(np.linalg.norm(ask("product_text", TEXT=[prompt])["EMBEDDING"]), 1, atol=1e-4)


@pytest.mark.parametrize("prompt", [b"", b"  ", b"\t\n"])
def test_empty_prompt_takes_the_whole_image(ask: Ask, prompt: bytes) -> None:
    grounded = ask("product_image", IMAGE=[PHOTO], PRODUCT_TYPE=[prompt])
    whole = ask("whole_image", IMAGE=[PHOTO])
    assert grounded["STATUS"].tolist() == [[1]]
    assert grounded["SCORE"].tolist() == [[0]]
    assert grounded["BOX"].tolist() == [[0, 0, 90, 120]]
    assert cosines(grounded["EMBEDDING"], whole["EMBEDDING"])[0] >= 0.9999


def test_blanks_around_a_text_do_not_matter(ask: Ask) -> None:
    answer = ask("product_text", TEXT=[b"a red mug", b"  a red mug\n"])
    np.testing.assert_array_equal(*answer["EMBEDDING"])
