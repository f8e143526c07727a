"""The photos of the command line: finds them, and draws boxes on them."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vlclip.cli.exits import UsageError
from vlclip.cli.rows import Item, Row

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
COLOUR = (214, 39, 40)


class Photos:
    """The photos that arguments name, each with the same product type."""

    def __init__(self, arguments: Sequence[str], product_type: str | None = None) -> None:
        self._arguments, self._type = arguments, product_type
        for argument in arguments:
            if not os.path.exists(argument) and not _is_pattern(argument):
                raise UsageError(f"{argument}: no such file or folder")
        if next(self._paths(), None) is None:
            raise UsageError(f"{' '.join(arguments)}: found no photos (in a folder: {', '.join(SUFFIXES)})")

    def count(self) -> int:
        return sum(1 for _ in self._paths())

    def __iter__(self) -> Iterator[Item]:
        return (Item(path=str(path), file=path, type=self._type).checked() for path in self._paths())

    def _paths(self) -> Iterator[Path]:
        for argument in self._arguments:
            if _is_pattern(argument):
                yield from (Path(name) for name in sorted(glob.glob(argument, recursive=True)) if os.path.isfile(name))
            elif os.path.isdir(argument):
                yield from _below(Path(argument))
            else:
                yield Path(argument)

    def drawn_to(self, out: Path) -> Callable[[Path], Path]:
        """Maps each photo to the path of its drawing: ``out``, or the photo's place in the folder ``out``.

        Raises UsageError if a drawing would overwrite a photo, or would later be found as a photo.
        """
        single = len(self._arguments) == 1 and os.path.isfile(self._arguments[0])
        if single and out.suffix and not out.is_dir():
            if out.suffix.lower() not in SUFFIXES:
                raise UsageError(f"--draw: expected a name that ends in {', '.join(SUFFIXES)}, got {out}")
            if os.path.realpath(out) == os.path.realpath(self._arguments[0]):
                raise UsageError(f"--draw: {out} is the photo itself, choose another file")
            return lambda photo: out
        if out.exists() and not out.is_dir():
            raise UsageError(f"--draw: expected a folder for several photos, got the file {out}")
        roots = {argument: _root(argument) for argument in self._arguments}
        shared = os.path.commonpath(roots.values())
        folders = [root for argument, root in roots.items() if os.path.isdir(argument) or "**" in argument]
        real = Path(os.path.realpath(out))
        below_a_folder = any(real.is_relative_to(os.path.realpath(folder)) for folder in folders)
        if below_a_folder or os.path.realpath(shared) == str(real):
            raise UsageError(f"--draw: {out} is among the photos, choose another folder")
        return lambda photo: out / os.path.relpath(os.path.abspath(photo), shared)


def _is_pattern(argument: str) -> bool:
    return glob.has_magic(argument) and not os.path.exists(argument)


def _root(argument: str) -> str:
    """The folder that contains all photos of an argument."""
    path = os.path.abspath(argument)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _below(folder: Path) -> Iterator[Path]:
    """The photos below a folder, in order. A folder that cannot be listed is yielded, so that reading it fails."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        yield folder
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path))
        elif entry.name.lower().endswith(SUFFIXES):
            yield Path(entry.path)


def draw(row: Row, target: Path) -> None:
    """Saves the photo, after its EXIF rotation, with its box, score and type."""
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    with Image.open(row.item.file or "") as stored:
        picture = ImageOps.exif_transpose(stored).convert("RGB")
    canvas = ImageDraw.Draw(picture)
    line = max(2, round(max(picture.size) / 200))
    label, left, top = f"no {row.item.type}", 0.0, 0.0
    if row.status == "grounded":
        left, top, right, bottom = map(float, row.values["box_xyxy"])
        label = f"{row.item.type} {row.values['score']:.2f}"
        canvas.rectangle((left, top, right, bottom), outline=COLOUR, width=line)
    font = ImageFont.load_default(max(12, max(picture.size) / 32))
    _, _, text_width, text_height = canvas.textbbox((0, 0), label, font)
    width, height = text_width + 2 * line, text_height + 2 * line
    # The label is above the box if it fits there, else inside the box.
    x, y = max(0.0, min(left, picture.width - width)), top - height if top >= height else top
    canvas.rectangle((x, y, x + width, y + height), fill=COLOUR)
    canvas.text((x + line, y + line), label, "white", font)
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.save(target if target.suffix.lower() in SUFFIXES else f"{target}.png", quality=92)
