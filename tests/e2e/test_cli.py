"""The command line against the real server: pictures and files are what they should be."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.judge import box_iou
from benchmarks.photos import draw_scenes
from serving.server.server import Server
from tests.pictures import TURNED_RIGHT, exif
from training.catalogue.scenes import Photo
from vlclip import cli
from vlclip.cli.photos import COLOUR


@pytest.fixture(scope="module")
def photos() -> list[Photo]:
    return draw_scenes(6, 31)


@pytest.mark.parametrize("turned", [False, True], ids=["upright", "turned by EXIF"])
def test_the_box_is_drawn_where_the_product_is(
    server: Server, photos: list[Photo], tmp_path: Path, capsys: pytest.CaptureFixture[str], turned: bool
) -> None:
    photo, product_type = photos[0], photos[0].items[0].product_type
    upright = Image.open(io.BytesIO(photo.jpeg))
    file, drawn = tmp_path / "photo.png", tmp_path / "found.png"
    if turned:
        upright.transpose(Image.Transpose.ROTATE_90).save(file, exif=exif(TURNED_RIGHT))
    else:
        upright.save(file)

    arguments = ["ground", file, "--type", product_type, "--draw", drawn, "--json", "--address", server.grpc_url]
    assert cli.main(list(map(str, arguments))) == cli.OK

    found = json.loads(capsys.readouterr().out)
    picture = np.asarray(Image.open(drawn))
    assert picture.shape == (*photo.size_wh[::-1], 3)
    box = np.array(found["box_xyxy"], np.float32)
    assert box_iou(box[None], photo.boxes_xyxy[:1])[0] >= 0.5
    x0, y0, x1, y1 = (int(x) for x in box)
    for line in (picture[y0 + 1, x0:x1], picture[y1 - 1, x0:x1], picture[y0:y1, x0 + 1], picture[y0:y1, x1 - 1]):
        assert (line == COLOUR).all()
    changed = (picture != np.asarray(upright)).any(2)
    assert not changed[y0 + 4 : y1 - 3, x0 + 4 : x1 - 3].any()
    assert not changed[y1 + 2 :].any()
    assert not changed[:, : x0 - 1].any()
    assert changed[:y0].any()  # the label, above


def test_the_photos_of_a_folder_are_drawn(
    server: Server, photos: list[Photo], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, drawn = tmp_path / "photos", tmp_path / "found"
    (folder / "more").mkdir(parents=True)
    for name, photo in zip(("0.jpg", "2.jpg", "more/1.jpg"), photos[:3], strict=True):
        (folder / name).write_bytes(photo.jpeg)
    (folder / "9.jpg").write_bytes(b"no photo")
    arguments = ["ground", str(folder), "--type", "mug", "--draw", str(drawn), "--address", server.grpc_url]
    assert cli.main(arguments) == cli.NOT_DECODED
    assert {str(path.relative_to(drawn)) for path in drawn.rglob("*.jpg")} == {"0.jpg", "2.jpg", "more/1.jpg"}
    assert "1 not an image" in capsys.readouterr().err
