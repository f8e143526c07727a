"""The promises that the synthetic catalogue makes to training and to benchmarks."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from training.catalogue.art import COLOURS, PATTERNS, Art, render
from training.catalogue.items import HELD_OUT_TYPES, TRAINED_TYPES, draw_item, is_held_out
from training.catalogue.products import MODULES, REGISTRY
from training.catalogue.scenes import Photo, packshot, scene


def _scenes(seed: int, count: int) -> list[Photo]:
    rng = np.random.default_rng(seed)
    pool = [draw_item(rng) for _ in range(30)]
    return [scene(np.random.default_rng([seed, i]), pool[i], pool) for i in range(count)]


def _pixels(photo: Photo) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(photo.jpeg)).convert("RGB"))


def test_the_catalogue_has_the_promised_variety() -> None:
    assert len(REGISTRY) >= 40
    assert len(COLOURS) == 10
    assert len(PATTERNS) == 5
    assert len({kind.department for kind in REGISTRY.values()}) >= 5
    assert set(HELD_OUT_TYPES) | set(TRAINED_TYPES) == set(REGISTRY)
    assert not set(HELD_OUT_TYPES) & set(TRAINED_TYPES)


def test_every_drawing_function_is_in_the_table() -> None:
    functions = [
        value
        for module in MODULES
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__ and not name.startswith("_")
    ]
    assert {kind.draw for kind in REGISTRY.values()} == set(functions)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_drawing_fills_its_square_and_stays_inside(name: str) -> None:
    for seed, pattern in enumerate(PATTERNS):
        art = Art(np.random.default_rng(seed), "red", pattern)
        REGISTRY[name].draw(art)
        alpha = render(art.svg(), 150, 150)[..., 3]  # 2 units a pixel, the square of -150 to 150
        ys, xs = np.nonzero(alpha > 8)
        assert max(ys.max() - ys.min(), xs.max() - xs.min()) > 60  # 120 units or more
        assert min(xs.min(), ys.min()) >= 18  # never beyond -114
        assert max(xs.max(), ys.max()) <= 131


def test_two_items_of_a_type_differ_in_shape() -> None:
    for name in REGISTRY:
        drawings = []
        for seed in range(3):
            art = Art(np.random.default_rng(seed), "blue", "plain")
            REGISTRY[name].draw(art)
            drawings.append(render(art.svg(), 100, 100).astype(int))
        assert max(np.abs(drawings[0] - other).max() for other in drawings[1:]) > 100, name


def test_the_same_seed_draws_the_same_photos() -> None:
    first, second = _scenes(3, 3), _scenes(3, 3)
    assert [photo.jpeg for photo in first] == [photo.jpeg for photo in second]
    assert [photo.items for photo in first] == [photo.items for photo in second]
    assert _scenes(4, 1)[0].jpeg != first[0].jpeg


def test_a_scene_has_at_least_four_different_products_and_a_box_for_each() -> None:
    for photo in _scenes(5, 12):
        assert len(photo.items) >= 4
        assert len({item.product_type for item in photo.items}) == len(photo.items)
        assert photo.boxes_xyxy.shape == (len(photo.items), 4)
        height, width = _pixels(photo).shape[:2]
        assert photo.size_wh == (width, height)
        x0, y0, x1, y1 = photo.boxes_xyxy.T
        assert (x0 >= 0).all()
        assert (y0 >= 0).all()
        assert (x1 <= width).all()
        assert (y1 <= height).all()
        assert ((x1 - x0) * (y1 - y0) > 200).all()


def test_the_box_of_a_packshot_encloses_its_pixels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(8):
        item = draw_item(rng)
        if item.colour == "white":
            continue
        photo = packshot(item, rng)
        ys, xs = np.nonzero(np.abs(_pixels(photo).astype(int) - 252).max(2) > 90)
        x0, y0, x1, y1 = photo.boxes_xyxy[0]
        assert x0 - 3 <= xs.min()
        assert y0 - 3 <= ys.min()
        assert xs.max() < x1 + 3
        assert ys.max() < y1 + 3


def test_training_never_sees_a_held_out_combination() -> None:
    rng = np.random.default_rng(0)
    trained = [draw_item(rng, training=True) for _ in range(2000)]
    assert not any(is_held_out(item.product_type, item.colour, item.pattern) for item in trained)
    free = [draw_item(rng) for _ in range(2000)]
    part = np.mean([is_held_out(item.product_type, item.colour, item.pattern) for item in free])
    assert 0.08 < part < 0.18


def test_caption_title_and_description_name_the_item() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        item = draw_item(rng)
        assert item.caption.endswith(item.product_type)
        assert item.colour in item.caption
        assert len(item.title.split()) > len(item.caption.split())
        assert item.colour in item.description
        assert item.title != draw_item(rng).title


def test_a_pool_with_too_few_types_is_rejected() -> None:
    item = draw_item(np.random.default_rng(0))
    with pytest.raises(ValueError, match="too few product types"):
        scene(np.random.default_rng(0), item, [item])
