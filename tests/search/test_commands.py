"""The commands, from a catalogue to answers, with a server of the models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.photos import draw_scenes
from search.__main__ import main
from serving.server.server import Server
from training.catalogue.scenes import Photo


@pytest.fixture(scope="module")
def scenes() -> list[Photo]:
    return draw_scenes(5, seed=77)


@pytest.fixture(scope="module")
def shop(server: Server, scenes: list[Photo], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options of an index with p0 … p4 and a copy of p0."""
    folder = tmp_path_factory.mktemp("shop")
    rows = ["id;type;title;photo;colour;price"]
    for n, scene in enumerate([*scenes, scenes[0]]):
        item, name = scene.items[0], f"{n % 5}.jpg"
        (folder / name).write_bytes(scene.jpeg)
        rows.append(f"p{n};{item.product_type};{item.title};{name};{item.colour};{n},50")
    (folder / "shop.csv").write_text("\n".join([*rows, "p0;;twice;0.jpg;;", ";;no id;0.jpg;;"]))
    options = ["--index", str(folder / "index"), "--url", server.grpc_url]
    assert main(["index", str(folder / "shop.csv"), *options]) == 3  # two bad rows
    return options


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["product"] for row in rows]


def test_products_are_found_narrowed_and_deleted(
    shop: list[str], scenes: list[Photo], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(scenes[1].jpeg)
    assert ids(run(capsys, "query", "a product", "--where", "price>=2", "--where", "price<4", *shop)) != []
    assert set(ids(run(capsys, "query", "x", "--where", "price>=2", "--where", "price<4", *shop))) == {"p2", "p3"}
    kind = scenes[1].items[0].product_type
    assert ids(run(capsys, "query", "--photo", str(photo), "--photo-type", kind, "--limit", "1", *shop)) == ["p1"]
    assert not {"p0", "p5"} & set(ids(run(capsys, "similar", "p0", "--widen", *shop)))
    assert ids(run(capsys, "similar", "p0", "--duplicates", *shop))[0] == "p5"
    assert not {"p1", "p2"} & set(ids(run(capsys, "recommend", "p1", "gone", "--not", "p2", *shop)))
    [copies] = run(capsys, "dedup", *shop)
    assert (copies["products"], copies["exact"]) == (["p0", "p5"], True)
    assert main(["similar", "gone", *shop]) == 1
    assert main(["query", *shop]) == 1
    assert main(["delete", "p4", "gone", *shop]) == 1


def test_attributes_are_guessed_from_a_file(
    shop: list[str], scenes: list[Photo], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = tmp_path / "values.yaml"
    values.write_text('"*": {colour: [red, orange, yellow, green, blue, purple, pink, brown, black, white]}')
    [outcome] = run(capsys, "attributes", str(values), "--confidence", "0", *shop)
    assert outcome["accuracy"] >= 0.6
    assert main(["attributes", str(values), *shop]) == 0
    assert "the confidence is not calibrated" in " ".join(capsys.readouterr().err.split())
    assert run(capsys, "attributes", *shop)[0]["name"] == "colour"
    values.write_text("[")
    assert main(["attributes", str(values), *shop]) == 1
    assert "neither JSON nor YAML" in capsys.readouterr().err


def test_a_version_is_built_served_and_left_again(
    shop: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries = tmp_path / "queries.csv"
    queries.write_text("query,product,grade\na product,p1,1\n")
    built = run(capsys, "reindex", "--queries", str(queries), *shop)
    assert (built["name"], built["failures"]) == ("c0002", [])
    assert main(["rollback", *shop]) == 0
    assert "c0001 is served again" in capsys.readouterr().out
    found = run(capsys, "versions", *shop)
    assert (found["served"], found["previous"]) == ("c0001", "c0002")
