"""Photos named on the command line: found, read as they are sent, and drawn on."""

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from vlclip.cli.rows import UNREADABLE, Row, UsageError
from vlclip.results import Result, Status

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
COLOUR = (214, 39, 40)


class Photos:
    """An iterable of files; which they were is kept until their answers come, and no longer."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = arguments
        self._waiting: deque[tuple[Path, str]] = deque()
        for argument in arguments:
            if not os.path.exists(argument) and not _is_pattern(argument):
                raise UsageError(f"{argument}: no such file or folder")
        if next(self._paths(), None) is None:
            raise UsageError(f"{' '.join(arguments)}: no photos there (of a folder, {', '.join(SUFFIXES)})")

    def count(self) -> int:
        return sum(1 for _ in self._paths())

    def _paths(self) -> Iterator[Path]:
        for argument in self._arguments:
            if _is_pattern(argument):
                yield from (Path(name) for name in sorted(glob.glob(argument, recursive=True)) if os.path.isfile(name))
            elif os.path.isdir(argument):
                yield from _below(Path(argument))
            else:
                yield Path(argument)

    def __iter__(self) -> Iterator[bytes]:
        for path in self._paths():
            try:
                content = path.read_bytes()
            except OSError as error:
                self._waiting.append((path, error.strerror or str(error)))
            else:
                self._waiting.append((path, ""))
                yield content

    def rows(self, parts: Iterable[Result]) -> Iterator[list[Row]]:
        """The rows of each part and, in their places, the files that could not be read."""
        for part in parts:
            rows = self._unreadable()
            columns = [(field.name, getattr(part, field.name)) for field in fields(part)]
            for i in range(len(part)):
                path, _ = self._waiting.popleft()
                rows.append(Row(file=str(path), **{name: column[i] for name, column in columns}))
                rows += self._unreadable()
            yield rows
        if rows := self._unreadable():
            yield rows

    def _unreadable(self) -> list[Row]:
        """Those in front of the next photo that was sent."""
        rows = []
        while self._waiting and self._waiting[0][1]:
            path, reason = self._waiting.popleft()
            rows.append(Row(file=str(path), status=UNREADABLE, reason=reason))
        return rows

    def drawn_to(self, out: Path) -> Callable[[Path], Path]:
        """Where the drawing of each photo goes: to ``out``, or below it as the photos lie below what they share.

        Raises UsageError where a drawing would replace a photo, or be found as one.
        """
        single = len(self._arguments) == 1 and os.path.isfile(self._arguments[0])
        if single and out.suffix and not out.is_dir():
            if out.suffix.lower() not in SUFFIXES:
                raise UsageError(f"--draw: expected a name that ends in {', '.join(SUFFIXES)}, got {out}")
            if os.path.realpath(out) == os.path.realpath(self._arguments[0]):
                raise UsageError(f"--draw: {out} is the photo itself, choose another name")
            return lambda photo: out
        if out.exists() and not out.is_dir():
            raise UsageError(f"--draw: expected a folder for several photos, got the file {out}")
        roots = {argument: _root(argument) for argument in self._arguments}
        shared = os.path.commonpath(roots.values())
        walked = [root for argument, root in roots.items() if os.path.isdir(argument) or "**" in argument]
        real = Path(os.path.realpath(out))
        if os.path.realpath(shared) == str(real) or any(real.is_relative_to(os.path.realpath(root)) for root in walked):
            raise UsageError(f"--draw: {out} is where the photos are, choose a folder elsewhere")
        return lambda photo: out / os.path.relpath(os.path.abspath(photo), shared)


def _is_pattern(argument: str) -> bool:
    return glob.has_magic(argument) and not os.path.exists(argument)


def _root(argument: str) -> str:
    """The folder below which all photos of an argument lie."""
    path = os.path.abspath(argument)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _below(folder: Path) -> Iterator[Path]:
    """Photos below a folder, in order. A folder that cannot be listed comes itself, so that reading it says why."""
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


def draw(row: Row, product_type: str, target: Path) -> None:
    """The photo as it is displayed, and on it what was found."""
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    with Image.open(row.file or "") as stored:
        picture = ImageOps.exif_transpose(stored).convert("RGB")
    canvas = ImageDraw.Draw(picture)
    line = max(2, round(max(picture.size) / 200))
    label, left, top = f"no {product_type}", 0.0, 0.0
    if row.status == Status.GROUNDED and row.box_xyxy is not None:
        left, top, right, bottom = map(float, row.box_xyxy)
        label = f"{product_type} {row.score:.2f}"
        canvas.rectangle((left, top, right, bottom), outline=COLOUR, width=line)
    font = ImageFont.load_default(max(12, max(picture.size) / 32))
    _, _, text_width, text_height = canvas.textbbox((0, 0), label, font)
    width, height = text_width + 2 * line, text_height + 2 * line
    # Above the box if there is room, else in it; never outside the picture.
    x, y = max(0.0, min(left, picture.width - width)), top - height if top >= height else top
    canvas.rectangle((x, y, x + width, y + height), fill=COLOUR)
    canvas.text((x + line, y + line), label, "white", font)
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.save(target if target.suffix.lower() in SUFFIXES else f"{target}.png", quality=92)
