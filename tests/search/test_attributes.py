"""Attributes are guessed from stored embeddings, with a confidence that is calibrated where values are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.attributes import LABELLED, calibration_error, fit_scale, softmax, vocabulary_of
from search.index import WrongVersion
from search.questions import Options
from search.records import Product
from search.shop import Shop
from search.store import Store
from tests.search.fakes import Models
from tests.search.test_index import ENGINES, make_store

pytestmark = [pytest.mark.filterwarnings("ignore:Local mode"), pytest.mark.filterwarnings("ignore:Payload indexes")]


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return make_store(request.param, tmp_path / "index")


def product(folder: Path, name: str, shows: str, kind: str = "mug", **attributes: Any) -> Product:
    """A product with a photo for each part of ``shows``."""
    photos = []
    for n, words in enumerate(shows.split(" | ")):
        path = folder / f"{name}-{n}.jpg"
        path.write_text(words)
        photos.append(str(path))
    return Product(id=name, product_type=kind, title=name, attributes=attributes, photos=tuple(photos))


def guesses(shop: Shop) -> dict[str, dict[str, str]]:
    return {point.payload["product"]: point.payload.get("guessed", {}) for point in shop.served().points({})}


COLOURS = vocabulary_of({"*": {"colour": ["red", "blue"]}, "lamp": {"colour": ["red", "green"]}})


def test_guesses_are_stored_filtered_by_and_kept_without_embedding_a_photo_again(store: Store, tmp_path: Path) -> None:
    models = Models()
    shop = Shop(store, models.client)
    rows = [
        product(tmp_path, "a", "red mug", colour="blue"),  # the shop is wrong, and the photo decides
        product(tmp_path, "b", "blue mug | blue mug side"),
        product(tmp_path, "c", "green lamp", "lamp"),
        product(tmp_path, "d", "red", ""),
    ]
    shop.upsert(rows)
    embedded = models.calls
    outcomes = shop.guess(COLOURS)
    assert models.calls == embedded
    colours = zip("abcd", ("red", "blue", "green", "red"), strict=True)
    assert guesses(shop) == {name: {"colour": colour} for name, colour in colours}
    assert [(one.products, one.labelled, one.accuracy) for one in outcomes] == [(3, 1, 0.0), (1, 0, None)]
    assert {one.attribute.labelled for one in outcomes} == {0}
    found = shop.by_text("mug", Options(where={"guessed.colour": "blue"}))
    assert [hit.payload["product"] for hit in found] == ["b"]
    assert shop.served().facet("guessed.colour") == {"blue": 2, "red": 2, "green": 1}

    # A replaced product is guessed again, and a product that is not replaced keeps its guess.
    shop.upsert([product(tmp_path, "b", "red mug side"), product(tmp_path, "e", "blue vase", "vase"), rows[2]])
    colours = zip("abcde", ("red", "red", "green", "red", "blue"), strict=True)
    assert guesses(shop) == {name: {"colour": colour} for name, colour in colours}

    # The next version is guessed with its own models, and an attribute is forgotten.
    built = shop.reindex(Models(2).client)
    assert built.failures == []
    assert guesses(shop)["c"] == {"colour": "green"}
    shop.guess(vocabulary_of({"*": {"colour": []}, "lamp": {"colour": []}}))
    assert not any(guesses(shop).values())
    assert shop.attributes() == ()
    shop.close()


def test_a_product_that_shows_no_value_clearly_has_no_guess(tmp_path: Path) -> None:
    shop = Shop(make_store("edge", tmp_path / "index"), Models().client)
    shop.upsert([product(tmp_path, "both", "red blue mug"), product(tmp_path, "one", "red mug")])
    shop.guess(vocabulary_of({"mug": {"colour": ["red", "blue"]}}, least=0.999))
    assert guesses(shop) == {"both": {}, "one": {"colour": "red"}}
    [point] = shop.served().points({"product": "one"})
    assert point.payload["confidence"]["colour"] > 0.999
    shop.close()


def test_models_of_another_version_guess_nothing(tmp_path: Path) -> None:
    models = Models()
    shop = Shop(make_store("edge", tmp_path / "index"), models.client)
    shop.upsert([product(tmp_path, "a", "red mug")])
    models.version = 2
    with pytest.raises(WrongVersion, match="run reindex"):
        shop.guess(COLOURS)
    shop.close()


def test_the_scale_is_fitted_on_known_values(tmp_path: Path) -> None:
    shop = Shop(make_store("edge", tmp_path / "index"), Models().client)
    rng = np.random.default_rng(3)
    rows = []
    for n in range(2 * LABELLED):
        colour, wrong = rng.choice(["red", "blue"], 2, replace=False)
        words = f"{colour} mug w{n}"  # a fifth of the products are described wrongly, so 0.8 is the true confidence
        rows.append(product(tmp_path, f"p{n}", words, colour=str(wrong if n % 5 == 0 else colour).upper()))
    shop.upsert(rows)
    [outcome] = shop.guess(vocabulary_of({"mug": {"colour": ["red", "blue"]}}))
    assert (outcome.labelled, outcome.attribute.labelled) == (2 * LABELLED, 2 * LABELLED)
    assert outcome.accuracy == pytest.approx(0.8, abs=0.05)
    assert outcome.attribute.scale < 20  # CLIP's 100 would be sure of every guess
    assert outcome.calibration_error is not None
    assert outcome.calibration_error < 0.15
    assert set(outcome.by_value) == {"red", "blue"}
    shop.close()


def test_the_scale_that_made_the_labels_is_found() -> None:
    rng = np.random.default_rng(1)
    cosines = rng.uniform(-0.3, 0.3, (4000, 4)).astype(np.float32)
    truth = np.array([rng.choice(4, p=row / row.sum()) for row in softmax(cosines * 20).astype(np.float64)])
    assert fit_scale(cosines, truth) == pytest.approx(20, rel=0.1)


@pytest.mark.parametrize(
    ("confidence", "right", "error"),
    [([1.0, 1.0], [True, True], 0.0), ([1.0, 1.0], [True, False], 0.5), ([0.75] * 4, [True, True, True, False], 0.0),
     ([0.95, 0.55], [True, False], 0.3)],
)  # fmt: skip
def test_the_calibration_error_compares_confidence_with_accuracy(
    confidence: list[float], right: list[bool], error: float
) -> None:
    assert calibration_error(np.array(confidence), np.array(right)) == pytest.approx(error)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([], "expected values by product type"),
        ({"mug": ["round"]}, "expected values by product type"),
        ({"mug": {"handle": "round"}}, "mug: handle: expected a list of values"),
        ({"mug": {"handle": [["round"], ["square"]]}}, "mug: handle: expected a list of values"),
        ({"mug": {"handle": {"round": 5, "square": "x"}}}, "mug: handle: expected a list of values"),
        ({"mug": {"handle": ["round"]}}, "at least two values"),
        ({"mug": {'"': ["round", "square"]}}, "quotation marks"),
    ],
)
def test_a_vocabulary_that_cannot_be_used_says_why(given: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        vocabulary_of(given)
