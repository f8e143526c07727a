"""Compare the served embeddings with a reference: PIL, open_clip's own preprocessing, and PyTorch.

    python -m benchmarks.parity --photos DIR --json out.json

Each photo goes through ``product_image``. The reference crops the original photo to the box that the server returned,
and embeds the crop. DIR holds JPEG, PNG or WebP files at any depth. The product type of a photo is that of a
``photos.csv`` with the columns ``path`` and ``type``, else ``--type``, else the name of its subfolder.

The benchmark needs PyTorch, and the checkpoint that the served models were exported from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.photos import OwnPhoto, add_options, find_photos
from benchmarks.target import keep, parser_of, served
from export.reference import Reference, open_image
from vlclip import Client, Status

BATCH = 64


def compare(client: Client, reference: Reference, photos: Sequence[OwnPhoto]) -> dict[str, Any]:
    """Cosines of the served embeddings with the reference's, for the same boxes.

    Raises SystemExit if the server decoded no photo.
    """
    cosines: dict[str, float] = {}
    grounded = 0
    for start in range(0, len(photos), BATCH):
        paths, types, _ = zip(*photos[start : start + BATCH], strict=True)
        found = client.embed_images(paths, types)
        grounded += int((found.status == Status.GROUNDED).sum())
        rows = np.flatnonzero(found.status <= Status.WHOLE_IMAGE)
        if len(rows):
            images = [open_image(paths[row].read_bytes()) for row in rows]
            expected = reference.embed(images, list(found.box_xyxy[rows]))
            cosine = (expected * found.embedding[rows]).sum(axis=1).tolist()
            cosines |= {str(paths[row]): one for row, one in zip(rows, cosine, strict=True)}
    if not cosines:
        raise SystemExit(f"the server decoded none of the {len(photos)} photos: expected JPEG, PNG or WebP files")
    worst = min(cosines, key=lambda path: cosines[path])
    return {
        "photos": len(photos),
        "grounded": grounded,
        "undecoded": len(photos) - len(cosines),
        "cosine_min": cosines[worst],
        "cosine_mean": float(np.mean(list(cosines.values()))),
        "worst": worst,
    }


def main() -> None:
    parser = parser_of("parity", __doc__)
    add_options(parser, required=True)
    parser.add_argument("--encoder", default="mini", help="the encoder that `python -m export` was given (%(default)s)")
    args = parser.parse_args()
    photos = find_photos(args.photos, args.type)
    with served(args.url) as url, Client(url, timeout=120) as client:
        report = compare(client, Reference(args.encoder), photos)
    Console().print(report)
    keep(report, args.json)


if __name__ == "__main__":
    main()
