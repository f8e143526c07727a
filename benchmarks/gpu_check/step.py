"""Runs one step in this process, so that a crash or a hang ends nothing else. ``benchmarks.gpu_check`` starts it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from benchmarks.gpu_check import in_process, served
from benchmarks.gpu_check.device import Place, reference_of
from benchmarks.gpu_check.machine import describe
from benchmarks.gpu_check.notes import Notes
from benchmarks.photos import draw_scenes

COUNT, SEED = 64, 16
ENLARGED = (1.0, 1.8, 3.0, 1.8)
"""Factors for the drawings of 300 to 420 pixels. A shop's photos are larger, and some are shrunk."""
WITHOUT_SERVER = {
    "graphs": in_process.compare_graphs,
    "chain": in_process.measure_chain,
    "parts": in_process.measure_parts,
}
WITH_SERVER = {
    "answers": served.compare_served,
    "speed": served.measure_speed,
    "memory": served.measure_memory,
    "dead process": served.kill_a_process,
}


def draw_photos(folder: Path) -> None:
    """JPEGs of scenes, with a subfolder for each product type."""
    for number, photo in enumerate(draw_scenes(COUNT, SEED)):
        kind = folder / photo.items[0].product_type.replace("/", " ")
        kind.mkdir(parents=True, exist_ok=True)
        image = cv2.imdecode(np.frombuffer(photo.jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        factor = ENLARGED[number % len(ENLARGED)]
        larger = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(kind / f"{number}.jpg"), larger, [cv2.IMWRITE_JPEG_QUALITY, 90])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check.step")
    add = parser.add_argument
    add("step")
    add("--device", required=True)
    add("--repository", type=Path, required=True)
    add("--photos", type=Path, required=True)
    add("--out", type=Path, required=True)
    add("--notes", type=Path, required=True)
    add("--seconds", type=float, required=True)
    add("--url", default="")
    add("--pid", type=int, default=0)
    args = parser.parse_args()
    notes, place = Notes(args.notes), Place(args.device, args.repository, args.photos, args.out)
    if args.step == "machine":
        notes.update(describe())
    elif args.step == "photos":
        draw_photos(args.photos)
    elif args.step == "reference":
        notes["photos"] = len(reference_of(place)["STATUS"])
    elif args.step in WITHOUT_SERVER:
        WITHOUT_SERVER[args.step](place, notes, args.seconds)
    else:
        WITH_SERVER[args.step](place, args.url, args.pid, notes, args.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
