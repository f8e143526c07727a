"""Which library decodes fastest, and what it costs to reduce large JPEGs while they are decoded.

    python -m benchmarks.decoders --photos DIR --json out.json

DIR holds photos (see benchmarks.parity); without it, scenes of the synthetic catalogue are drawn. They are brought to
several sizes: enlarged, with the grain of a sensor so that there is detail in every pixel, or as mosaics of photos at
their own size. First, every library decodes the same files in turns, in one thread, and its pixels are compared with
Pillow's, which is what models are trained with. Then JPEGs are brought to the canvas as `decode` does it, in full and
reduced by the decoder to no less than 1, 1.5 and 2 times the canvas, and both canvases go through ``product_image``.
Where two products score alike, anything may turn the choice: the first row of each kind has one grey level of noise on
the canvas instead, for comparison. Cosines are those of answers whose boxes agree; the others are counted as moved.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.canary import box_iou
from benchmarks.in_process import load_images
from benchmarks.retrieval import draw_scenes
from benchmarks.target import find_photos, keep, parser_of, served
from training.catalogue.items import TRAINED_TYPES
from vlclip import Client, ImageEmbeddings

images = load_images()
SIDES = (300, 800, 1280, 4000)
REDUCED_SIDES = (1600, 2000, 2320, 2700, 3100, 4000)
"""With a canvas of 768 they leave little more than 1, 1.3, 1.5, 1.75 and 2 times of it, and 1.3 or 2.6 times."""
SPARES = (1.0, 1.5, 2.0)
CANVAS = 768
SAME_BOX = 0.9
"""IoU from which two boxes are the same one."""
TURNS = 7
Decoder = Callable[[bytes], np.ndarray]
"""(file) → RGB uint8 [H, W, 3]"""


def find_decoders() -> tuple[dict[str, Decoder], dict[str, str]]:
    """What is installed, OpenCV first; and why the others are not."""
    found: dict[str, Decoder] = {"OpenCV": by_opencv, "Pillow": by_pillow}
    missing = {}
    try:
        import simplejpeg

        found["simplejpeg"] = lambda file: simplejpeg.decode_jpeg(file, "RGB")
    except ImportError as error:
        missing["simplejpeg"] = str(error)
    try:
        from turbojpeg import TJPF_RGB, TurboJPEG

        turbo = TurboJPEG()
        found["PyTurboJPEG"] = lambda file: turbo.decode(file, TJPF_RGB)
    except (ImportError, OSError, RuntimeError) as error:
        missing["PyTurboJPEG"] = str(error).splitlines()[0]
    return found, missing


def by_opencv(file: bytes) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    assert pixels is not None
    return pixels


def by_pillow(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def enlarged(photo: Image.Image, side: int, seed: int) -> Image.Image:
    """To ``side`` pixels at the longer side, with grain of 4 grey levels."""
    scale = side / max(photo.size)
    large = np.asarray(
        photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.LANCZOS)
    )
    grain = np.random.default_rng(seed).normal(0, 4, (*large.shape[:2], 1))
    return Image.fromarray((large + grain).round().clip(0, 255).astype(np.uint8))


def mosaic(photos: Sequence[Image.Image], side: int, first: int) -> Image.Image:
    """A square full of photos at their own size."""
    paper = Image.new("RGB", (side, side))
    y = 0
    while y < side:
        x = row = 0
        while x < side:
            photo = photos[first % len(photos)]
            paper.paste(photo, (x, y))
            x, row, first = x + photo.width, max(row, photo.height), first + 1
        y += row
    return paper


def patterns(side: int) -> dict[str, Image.Image]:
    """What resampling finds hardest: (side, side)."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    drawn = {
        "rings to 1 pixel": np.cos(np.pi * (x**2 + y**2) / (2 * side)),
        "stripes of 3 pixels": np.sign(np.sin(2 * np.pi * (x + 0.01 * y) / 3)),
        "chequers of 2 pixels": np.sign(np.sin(np.pi * x / 2 + 0.1) * np.sin(np.pi * y / 2 + 0.1)),
        "noise": np.random.default_rng(0).uniform(-1, 1, (side, side)),
    }
    grey = {name: Image.fromarray((127.5 + 127 * wave).astype(np.uint8)).convert("RGB") for name, wave in drawn.items()}
    red_green = np.stack([np.sign(np.sin(x)), -np.sign(np.sin(x)), 0 * x], axis=2)
    return {**grey, "red and green stripes": Image.fromarray((127.5 + 127 * red_green).astype(np.uint8))}


def as_file(photo: Image.Image, file_format: str = "JPEG") -> bytes:
    file = io.BytesIO()
    photo.save(file, file_format, **({} if file_format == "PNG" else {"quality": 90}))
    return file.getvalue()


def thread_ms(work: Callable[..., Any], files: Sequence[bytes], *options: Any) -> float:
    """What this thread computed for a file, in ms."""
    begun = time.thread_time()
    for file in files:
        work(file, *options)
    return 1e3 * (time.thread_time() - begun) / len(files)


def compare_libraries(photos: Sequence[Image.Image], sides: Sequence[int] = SIDES) -> dict[str, dict[str, Any]]:
    """By file and library: images a second in one thread, medians of turns; and grey levels from Pillow's pixels."""
    decoders, _ = find_decoders()
    kinds = {f"JPEG {side}": ("JPEG", side) for side in sides} | {"PNG 800": ("PNG", 800), "WebP 800": ("WEBP", 800)}
    report: dict[str, dict[str, Any]] = {}
    for name, (file_format, side) in kinds.items():
        count = max(2, min(len(photos), 8000 // side))
        files = [as_file(enlarged(photo, side, seed), file_format) for seed, photo in enumerate(photos[:count])]
        able = decoders if file_format == "JPEG" else {name: decoders[name] for name in ("OpenCV", "Pillow")}
        took: dict[str, list[float]] = {library: [] for library in able}
        for turn in range(TURNS + 1):
            for library, decode in able.items():
                ms = thread_ms(decode, files)
                if turn:  # the first one warms up
                    took[library].append(ms)
        expected = [by_pillow(file).astype(np.int16) for file in files]
        for library, decode in able.items():
            apart = [np.abs(decode(file) - pixels) for file, pixels in zip(files, expected, strict=True)]
            ratios = [mine / theirs for mine, theirs in zip(took["OpenCV"], took[library], strict=True)]
            report[f"{name}, {library}"] = {
                "images/s": 1e3 / statistics.median(took[library]),
                "of OpenCV": statistics.median(ratios),
                "from Pillow, max": int(max(one.max() for one in apart)),
                "from Pillow, mean": float(np.mean([one.mean() for one in apart])),
            }
    return report


def on_canvas(file: bytes, spare: float | None) -> np.ndarray:
    """As `decode` brings a JPEG to the canvas; in full where there is no ``spare``."""
    width, height = Image.open(io.BytesIO(file)).size
    factor = images.reduction(max(width, height), CANVAS, spare) if spare else 1
    return images.shrink(images.read_jpeg(file, factor), images.fitted_hw(height, width, CANVAS))


def large_files(
    photos: Sequence[Image.Image], types: Sequence[str], count: int, sides: Sequence[int]
) -> Iterator[tuple[str, int, list[bytes], list[str]]]:
    """What is shown, side, JPEGs of it, and their product types."""
    for side in sides:
        files = [as_file(enlarged(photo, side, seed)) for seed, photo in enumerate(photos[:count])]
        yield "enlarged", side, files, list(types[:count])
        # Mosaics start with the photo whose type is asked for.
        yield "mosaic", side, [as_file(mosaic(photos, side, first)) for first in range(count)], list(types[:count])
        drawn = [as_file(photo) for photo in patterns(side).values()]
        yield "patterns", side, drawn, [types[0]] * len(drawn)


def compare_reductions(
    client: Client,
    photos: Sequence[Image.Image],
    types: Sequence[str],
    count: int,
    sides: Sequence[int] = REDUCED_SIDES,
) -> dict[str, dict[str, Any]]:
    """By picture, side and reduction: canvases and answers beside those of full decoding, and the time saved."""
    report: dict[str, dict[str, Any]] = {}
    for name, side, files, prompts in large_files(photos, types, count, sides):
        # Pixels travel as PNG and fit the canvas, so that the server's `decode` leaves them as they are.
        full = [on_canvas(file, None) for file in files]
        expected = client.embed_images(full, prompts)
        rng = np.random.default_rng(side)
        noisy = [np.clip(one + rng.integers(-1, 2, one.shape), 0, 255).astype(np.uint8) for one in full]
        report[f"{name} {side}, noise"] = differences(full, noisy, expected, client.embed_images(noisy, prompts))
        spares = {images.reduction(side, CANVAS, spare): spare for spare in SPARES}
        for factor, spare in sorted(spares.items()):
            if factor > 1:
                reduced = [on_canvas(file, spare) for file in files]
                ratios = [thread_ms(on_canvas, [file], spare) / thread_ms(on_canvas, [file], None) for file in files]
                report[f"{name} {side}, 1/{factor} = {side / factor / CANVAS:.2f} canvases"] = {
                    **differences(full, reduced, expected, client.embed_images(reduced, prompts)),
                    "time of full": statistics.median(ratios),
                }
    return report


def differences(
    full: Sequence[np.ndarray], canvases: Sequence[np.ndarray], expected: ImageEmbeddings, found: ImageEmbeddings
) -> dict[str, Any]:
    """Of N canvases and their answers from those of full decoding."""
    apart = [np.abs(a.astype(np.int16) - b) for a, b in zip(full, canvases, strict=True)]
    iou = box_iou(expected.box_xyxy, found.box_xyxy)
    moved = (iou < SAME_BOX) | (expected.status != found.status)
    cosine = (expected.embedding * found.embedding).sum(1)[~moved]
    return {
        "files": len(full),
        "grey levels, max": int(max(one.max() for one in apart)),
        "mean": float(np.mean([one.mean() for one in apart])),
        "moved": int(moved.sum()),
        "cosine, min": float(cosine.min(initial=1)),
        "IoU, min": float(iou[~moved].min(initial=1)),
        "score, max": float(np.abs(expected.score - found.score).max()),
    }


def show(title: str, rows: dict[str, dict[str, Any]]) -> None:
    table = Table(title=title)
    table.add_column("")
    columns = max(rows.values(), key=len)
    for column in columns:
        table.add_column(column, justify="right")
    for name, row in rows.items():
        values = (row.get(column, "") for column in columns)
        table.add_row(name, *(f"{value:.5g}" if isinstance(value, float) else str(value) for value in values))
    Console(width=160).print(table)


def main() -> None:
    parser = parser_of("decoders", __doc__)
    parser.add_argument("--photos", type=Path, help="folder of photos (default: scenes of the synthetic catalogue)")
    parser.add_argument("--type", default="product", help="prompt where photos.csv gives none (%(default)s)")
    parser.add_argument("--count", type=int, default=12, help="photos of each kind and size (%(default)s)")
    args = parser.parse_args()
    if args.photos:
        found = find_photos(args.photos, args.type)
        # From all over the folder, which is sorted by what is shown.
        found = found[:: max(1, len(found) // (4 * args.count))]
        photos, types = [Image.open(path).convert("RGB") for path, _ in found], [prompt for _, prompt in found]
    else:
        scenes = draw_scenes(4 * args.count, 17, TRAINED_TYPES)
        photos = [Image.open(io.BytesIO(scene.jpeg)) for scene in scenes]
        types = [scene.items[0].product_type for scene in scenes]
    libraries = compare_libraries(photos)
    show(f"One thread, medians of {TURNS} turns", libraries)
    missing = find_decoders()[1]
    for library, why in missing.items():
        print(f"{library} is not measured: {why}")
    with served(args.url) as url, Client(url, timeout=120) as client:
        reductions = compare_reductions(client, photos, types, args.count)
    show("JPEGs reduced while they are decoded, beside full decoding", reductions)
    keep({"libraries": libraries, "missing": missing, "reductions": reductions}, args.json)


if __name__ == "__main__":
    main()
