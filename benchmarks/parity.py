"""Compare the served embeddings with the reference: PIL, open_clip's own preprocessing, PyTorch.

    python -m benchmarks.parity --photos DIR --json out.json

DIR holds photos (JPEG, PNG, WebP, at any depth); a ``photos.csv`` with columns ``file`` and ``product_type`` gives the
prompts, otherwise ``--type`` does. Each photo goes through ``product_image``; the reference crops the original photo to
the box that came back. It needs the checkpoint that the served models were exported from, and PyTorch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.photos import find_photos
from benchmarks.target import keep, parser_of, served
from export.reference import Reference, open_image
from vlclip import Client, Status


def compare(client: Client, reference: Reference, photos: list[tuple[Path, str]], batch: int = 64) -> dict[str, Any]:
    """Cosine of every served embedding with the reference's for the same box, for the same box."""
    cosines: list[float] = []
    grounded = undecoded = 0
    for start in range(0, len(photos), batch):
        paths, types = zip(*photos[start : start + batch], strict=True)
        served_rows = client.embed_images(list(paths), list(types))
        rows = np.flatnonzero(served_rows.status <= Status.WHOLE_IMAGE)
        undecoded += len(paths) - len(rows)
        grounded += int((served_rows.status == Status.GROUNDED).sum())
        if len(rows):
            images = [open_image(paths[row].read_bytes()) for row in rows]
            expected = reference.embed(images, list(served_rows.box_xyxy[rows]))
            cosines += (expected * served_rows.embedding[rows]).sum(1).tolist()
    worst = int(np.argmin(cosines))
    return {
        "photos": len(photos),
        "grounded": grounded,
        "undecoded": undecoded,
        "cosine_min": min(cosines),
        "cosine_mean": float(np.mean(cosines)),
        "worst": photos[worst][0].name,
    }


def main() -> None:
    parser = parser_of("parity", __doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos")
    parser.add_argument("--type", default="product", help="prompt where photos.csv gives none (%(default)s)")
    parser.add_argument("--encoder", default="mini", help="what `python -m export --encoder` was given (%(default)s)")
    args = parser.parse_args()
    photos = find_photos(args.photos, args.type)
    with served(args.url) as url, Client(url, timeout=120) as client:
        report = compare(client, Reference(args.encoder), photos)
    Console().print(report)
    keep(report, args.json)


if __name__ == "__main__":
    main()
