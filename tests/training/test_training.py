"""The arithmetic of training, and a short training run whose models load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from training import detector, encoder
from training.augment import relight, resample
from training.catalogue.items import HELD_OUT_TYPES, TRAINED_TYPES
from training.data import PHOTO_SIDE, letterbox

FULL = [0.0, 0.0, 1.0, 1.0]


def _window(centre_x: float, centre_y: float, extent_x: float, extent_y: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([[centre_x, centre_y]]), torch.tensor([[extent_x, extent_y]])


def test_a_full_window_is_the_image_and_a_negative_extent_mirrors() -> None:
    image = torch.rand(1, 3, 8, 8)
    assert torch.allclose(resample(image, *_window(*FULL), 8, fill=0.5), image, atol=1e-5)
    mirrored = resample(image, *_window(0, 0, -1, 1), 8, fill=0.5)
    assert torch.allclose(mirrored, image.flip(3), atol=1e-5)


def test_pixels_outside_the_image_have_the_fill_value() -> None:
    image = torch.ones(1, 3, 8, 8)
    wide = resample(image, *_window(0, 0, 2, 2), 8, fill=0.25)
    assert wide[0, 0, 0, 0] == pytest.approx(0.25)
    assert wide[0, 0, 4, 4] == pytest.approx(1.0)


def test_relight_stays_in_range() -> None:
    lit = relight(torch.rand(16, 3, 8, 8))
    assert lit.min() >= 0
    assert lit.max() <= 1


@pytest.mark.parametrize(
    ("box", "window", "expected"),
    [
        pytest.param([0, 0, 320, 320], FULL, [0.5, 0.5, 1, 1], id="everything"),
        pytest.param([80, 160, 160, 320], FULL, [0.375, 0.75, 0.25, 0.5], id="unchanged size"),
        pytest.param([80, 160, 160, 320], [0, 0, -1, 1], [0.625, 0.75, 0.25, 0.5], id="mirrored"),
        pytest.param([0, 0, 160, 160], [-0.5, -0.5, 0.5, 0.5], [0.5, 0.5, 1, 1], id="a quarter of the photo"),
        pytest.param([0, 0, 320, 320], [0, 0, 2, 2], [0.5, 0.5, 0.5, 0.5], id="zoomed out"),
        pytest.param([0, 0, 80, 80], [0.5, 0.5, 0.5, 0.5], None, id="not visible"),
        pytest.param([0, 0, 200, 320], [0.5, 0, 0.5, 1], None, id="a fifth visible"),
    ],
)
def test_boxes_follow_the_window(box: list[float], window: list[float], expected: list[float] | None) -> None:
    assert PHOTO_SIDE == 320
    seen = detector._visible_box(torch.tensor(box, dtype=torch.float32), torch.tensor(window))
    assert seen is None if expected is None else seen is not None and seen.tolist() == pytest.approx(expected)


def test_the_box_through_a_window_matches_the_resampled_pixels() -> None:
    image = torch.zeros(1, 3, 320, 320)
    box = torch.tensor([96.0, 64.0, 160.0, 192.0])
    image[:, :, 64:192, 96:160] = 1
    centre, extent = _window(0.1, -0.2, -0.8, 0.7)
    seen = detector._visible_box(box, torch.cat([centre, extent], 1)[0])
    ys, xs = np.nonzero(resample(image, centre, extent, 320, fill=0.0)[0, 0].numpy() > 0.5)
    assert seen is not None
    x, y, w, h = (seen * 320).tolist()
    assert [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] == pytest.approx(
        [x - w / 2, y - h / 2, x + w / 2, y + h / 2], abs=1.5
    )


def test_letterbox_centres_on_grey() -> None:
    square, scale, left, top = letterbox(np.full((100, 200, 3), 7, np.uint8), 320)
    assert (scale, left, top) == (1.6, 0, 80)
    assert square[0, 0].tolist() == [114] * 3
    assert square[160, 160].tolist() == [7] * 3


def test_region_loss_is_small_for_the_right_name() -> None:
    vocabulary = torch.eye(4)
    words = torch.zeros(1, 4, 2, 2)
    words[0, 2, 1, 0] = 50  # the lower left cell matches name 2
    right, wrong = ([[0.0, number, 0.1, 0.9]] for number in (2.0, 3.0))
    assert detector._name_regions([words], torch.tensor(right), vocabulary) < 0.01
    assert detector._name_regions([words], torch.tensor(wrong), vocabulary) > 10


def test_the_tokenizer_splits_no_type_name_into_many_tokens() -> None:
    tokenizer = encoder._tokenizer(Path("weights/mini/encoder"))
    lengths = [len(tokenizer.encode(name)) for name in (*TRAINED_TYPES, *HELD_OUT_TYPES)]
    assert max(lengths) <= 5
    assert tokenizer.context_length >= 20


@pytest.mark.slow
def test_a_short_training_run_writes_models_that_load(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    steps = ["--scenes", "250", "--encoder-steps", "2", "--detector-steps", "2", "--refine-steps", "1"]
    subprocess.run([*command, *steps], check=True, capture_output=True)
    model, tokenizer = encoder.load(tmp_path / "out/encoder", torch.device("cpu"))
    assert detector.encode_prompts(["mug", "desk lamp"], model, tokenizer).shape == (2, 512)
    subprocess.run([*command, *steps, "--resume"], check=True, capture_output=True)
    assert (tmp_path / "out/detector.pt").stat().st_size < 8e6
