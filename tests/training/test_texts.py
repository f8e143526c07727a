"""The texts that name no product, and the losses and pictures that training makes of what is absent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from training import detector, encoder
from training.catalogue.art import COLOURS
from training.catalogue.items import TRAINED_TYPES, Item
from training.catalogue.products import REGISTRY
from training.data import CROP_SIDE, PHOTO_SIDE, Dataset
from training.empty import draw_empty
from training.texts import EVALUATION_WORDS, KNOWN, TRAINING_WORDS, draw_attributes, draw_name, draw_unknown


def test_the_lists_of_words_name_no_product_and_are_disjoint() -> None:
    assert len(EVALUATION_WORDS) >= 100
    assert not set(TRAINING_WORDS) & set(EVALUATION_WORDS)
    assert not (set(TRAINING_WORDS) | set(EVALUATION_WORDS)) & KNOWN


@pytest.mark.parametrize("draw", [draw_unknown, draw_attributes])
def test_a_negative_text_names_no_product_and_no_word_of_the_evaluation(
    draw: Callable[[np.random.Generator], str],
) -> None:
    rng = np.random.default_rng(0)
    texts = {draw(rng) for _ in range(4000)}
    assert len(texts) > 1500
    for text in texts:
        words = text.lower().split()
        parts = {" ".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
        assert not parts & KNOWN, text
        assert not parts & set(EVALUATION_WORDS), text


def test_a_name_is_of_its_type_and_sometimes_in_the_plural() -> None:
    rng = np.random.default_rng(0)
    assert {draw_name("wrist watch", rng) for _ in range(2000)} == {
        *("wrist watch", "wristwatch", "watch", "wrist watches", "wristwatches", "watches")
    }
    assert {draw_name("dress", rng) for _ in range(300)} >= {"dress", "dresses"}
    assert {draw_name("jeans", rng) for _ in range(300)} >= {"jeans"}


def _unit(*rows: list[float]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=-1)


def test_contrast_is_clips_loss_plus_wrong_answers() -> None:
    torch.manual_seed(0)
    image, text = (torch.nn.functional.normalize(torch.randn(6, 4), dim=-1) for _ in range(2))
    scale = torch.tensor(5.0)
    plain = encoder.contrast(image, text, text[:0], scale)
    assert plain.item() == pytest.approx(open_clip.ClipLoss()(image, text, scale).item(), abs=1e-5)
    assert encoder.contrast(image, text, image, scale) > plain + 0.3


def test_names_and_other_texts_are_kept_apart() -> None:
    names = _unit([1, 0, 0, 0], [0, 1, 0, 0])
    assert encoder.keep_apart(names, _unit([0, 0, 1, 0])) == 0
    assert encoder.keep_apart(names, _unit([1, 0, 0, 0], [0, 0, 1, 0])).item() == pytest.approx(0.4)
    assert encoder.keep_apart(names[:1].repeat(2, 1), _unit([0, 0, 1, 0])).item() == pytest.approx(0.25)


def test_empty_photos_are_pictures_of_many_kinds() -> None:
    photos = np.random.default_rng(0).integers(0, 255, (2, PHOTO_SIDE, PHOTO_SIDE, 3), np.uint8)
    pictures = draw_empty(np.random.default_rng(1), 8, photos)
    assert pictures.shape == (8, PHOTO_SIDE, PHOTO_SIDE, 3)
    assert pictures.dtype == np.uint8
    assert np.array_equal(pictures, draw_empty(np.random.default_rng(1), 8, photos))
    means = pictures.reshape(8, -1, 3).mean(1)
    assert len({tuple(mean) for mean in means.round().tolist()}) == 8


def _item(product_type: str) -> Item:
    return Item(product_type, next(iter(COLOURS)), "plain", "tin", "men", 1)


def test_half_of_the_prompts_are_for_what_is_visible() -> None:
    rng = np.random.default_rng(0)
    visible = {7: _item("mug"), 9: _item("sofa"), 12: _item("kite")}
    called = {kind: kind.upper() for kind in TRAINED_TYPES}
    near = {kind: [other for other in TRAINED_TYPES if other != kind][:8] for kind in TRAINED_TYPES}
    present = {"mug", "sofa", "kite", "drum"}
    asked = [detector._draw_prompts(visible, present, called, near, rng) for _ in range(1500)]
    assert {len(prompts) for prompts in asked} == {detector.PROMPTS}
    right = [(answer, text) for prompts in asked for answer, text in prompts if answer is not None]
    wrong = [text for prompts in asked for answer, text in prompts if answer is None]
    assert 0.47 < len(right) / (len(right) + len(wrong)) < 0.53
    assert {text.split()[-1] for answer, text in right if answer == 9} == {"SOFA"}
    assert not {"MUG", "SOFA", "KITE", "DRUM"} & {text.split()[-1] for text in wrong}
    known = sum(text.upper() == text or text.split(maxsplit=1)[-1].isupper() for text in wrong)
    assert 0.75 < known / len(wrong) < 0.85


def test_a_photo_without_products_gets_prompts_too() -> None:
    called = {kind: kind for kind in TRAINED_TYPES}
    prompts = detector._draw_prompts({}, set(), called, {}, np.random.default_rng(0))
    assert [answer for answer, _ in prompts] == [None] * detector.PROMPTS


def _noise(count: int) -> Dataset:
    """A training set of noise with one product of each type."""
    rng = np.random.default_rng(0)
    return Dataset(
        photos=rng.integers(0, 255, (count, PHOTO_SIDE, PHOTO_SIDE, 3), np.uint8),
        crops=rng.integers(0, 255, (len(TRAINED_TYPES), CROP_SIDE, CROP_SIDE, 3), np.uint8),
        boxes_xyxy=np.tile(np.array([[60, 60, 220, 240]], np.float32), (len(TRAINED_TYPES), 1)),
        photo_of=np.arange(len(TRAINED_TYPES)) % count,
        items=[_item(kind) for kind in TRAINED_TYPES],
    )


def test_a_few_steps_move_unknown_words_away_and_the_detector_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector, "_EMPTY_PHOTOS", 4)
    data, device = _noise(12), torch.device("cpu")
    encoder.train(tmp_path / "encoder", data, steps=6, batch=4, device=device)
    model, tokenizer = encoder.load(tmp_path / "encoder", device)
    words, names = (detector.encode_prompts(texts, model, tokenizer) for texts in (EVALUATION_WORDS, TRAINED_TYPES))
    assert (words @ names.T).amax(1).median() < 0.9  # without the loss, 0.99 and more
    detector.train(tmp_path / "detector.pt", data, model, tokenizer, steps=2, batch=12, device=device)
    weights = torch.load(tmp_path / "detector.pt", weights_only=False)["model"].state_dict()
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_the_shipped_encoder_keeps_unknown_words_away_from_the_names() -> None:
    model, tokenizer = encoder.load(Path("weights/mini/encoder"), torch.device("cpu"))
    called = [name for kind in TRAINED_TYPES for name in (kind, *REGISTRY[kind].synonyms)]
    names = detector.encode_prompts(called, model, tokenizer)
    nearest = (detector.encode_prompts(EVALUATION_WORDS, model, tokenizer) @ names.T).amax(1)
    assert nearest.quantile(0.95) < 0.3
    longer = detector.encode_prompts([f"a photo of a {kind}" for kind in TRAINED_TYPES], model, tokenizer)
    assert (longer * detector.encode_prompts(TRAINED_TYPES, model, tokenizer)).sum(1).min() > 0.7
