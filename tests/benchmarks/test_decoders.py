"""What the comparison of decoders says of pictures whose answers are known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.decoders import as_file, compare_libraries, compare_reductions, mosaic, on_canvas
from serving.server.server import Server
from tests.pictures import picture
from vlclip import Client


@pytest.fixture(scope="module")
def server(toy_repositories: list[Path]) -> Iterator[Server]:
    with Server.start(toy_repositories) as server:
        yield server


def test_every_library_is_measured_and_equals_pillow() -> None:
    report = compare_libraries([Image.fromarray(picture(seed=seed)) for seed in range(2)], sides=[64])
    assert {"JPEG 64, OpenCV", "JPEG 64, Pillow", "PNG 800, OpenCV", "WebP 800, OpenCV"} <= set(report)
    for name, row in report.items():
        assert row["images/s"] > 0, name
        assert row["from Pillow, max"] == 0, name


def test_reductions_stand_beside_full_decoding(server: Server) -> None:
    photos = [Image.fromarray(picture(300, 200, seed)) for seed in range(3)]
    with Client(server.grpc_url) as client:
        report = compare_reductions(client, photos, ["mug"] * 3, 2, sides=[1600])
    assert {name for name in report if "mosaic" in name} == {"mosaic 1600, noise", "mosaic 1600, 1/2 = 1.04 canvases"}
    noise, reduced = report["enlarged 1600, noise"], report["enlarged 1600, 1/2 = 1.04 canvases"]
    assert noise["grey levels, max"] == 1
    assert 0.5 < noise["mean"] < 0.8
    assert reduced["files"] == 2
    assert reduced["grey levels, max"] > 1
    assert reduced["cosine, min"] > 0.999
    assert reduced["time of full"] < 1


@pytest.mark.parametrize("spare", [None, 1.0, 2.0])
def test_a_canvas_holds_the_longer_side(spare: float | None) -> None:
    file = as_file(mosaic([Image.fromarray(picture())], 1600, 0))
    canvas = on_canvas(file, spare)
    assert canvas.shape == (768, 768, 3)
    assert np.ptp(canvas) > 50
