"""The preprocessing that an open_clip configuration describes, checked field by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from open_clip.transform import PreprocessCfg

from export.errors import UnsupportedModel
from export.images import Preprocessing

RESIZE_MODES = ("shortest", "longest", "squash")
INTERPOLATIONS = ("bicubic", "bilinear")


def read_preprocessing(label: str, fields: Mapping[str, Any]) -> Preprocessing:
    """The preprocessing of the fields of open_clip's ``PreprocessCfg``, as in ``preprocess_cfg`` of a folder.

    As in open_clip, one number for ``mean`` or ``std`` stands for all three channels.

    Raises:
        UnsupportedModel: a value that open_clip or this export does not know.
    """

    def refuse(name: str, expected: str) -> NoReturn:
        raise UnsupportedModel(f"the preprocessing of {label} has {name} {fields[name]!r}: expected {expected}")

    def channels(name: str, low: float, expected: str) -> tuple[float, float, float]:
        value = fields[name]
        numbers = [value] * 3 if is_number(value) else value
        if not is_three(numbers) or not all(is_number(number) and number > low for number in numbers):
            refuse(name, expected)
        return numbers[0], numbers[1], numbers[2]

    size = fields["size"]
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise UnsupportedModel(f"{label} takes {size} pixels: only square inputs can be exported")
    if fields["mode"] != "RGB":
        refuse("mode", "RGB")
    if fields["interpolation"] not in (*INTERPOLATIONS, "random"):
        refuse("interpolation", " or ".join(INTERPOLATIONS))
    if fields["resize_mode"] not in RESIZE_MODES:
        refuse("resize_mode", ", ".join(RESIZE_MODES))
    fill = fields["fill_color"]
    colour = [fill] * 3 if isinstance(fill, int) else fill
    if not is_three(colour) or not all(isinstance(level, int) and 0 <= level <= 255 for level in colour):
        refuse("fill_color", "a level from 0 to 255, or three for red, green and blue")
    return Preprocessing(
        size=height,
        mean=channels("mean", float("-inf"), "a number, or three for red, green and blue"),
        std=channels("std", 0.0, "a positive number, or three for red, green and blue"),
        interpolation="bilinear" if fields["interpolation"] == "bilinear" else "bicubic",  # random is for training
        resize_mode=fields["resize_mode"],
        fill_color=colour[0] if len(set(colour)) == 1 else (colour[0], colour[1], colour[2]),
    )


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_three(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 3


def open_clip_config(preprocessing: Preprocessing) -> PreprocessCfg:
    """The same for open_clip's own transform."""
    return PreprocessCfg(mode="RGB", **preprocessing.to_dict())
