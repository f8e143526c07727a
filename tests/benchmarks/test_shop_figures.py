"""The figures of a drawn shop, through the gateway and the index."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import shop_figures
from benchmarks.shop_figures import Truth, possible, text_queries
from search.evaluate import read_judgements
from serving.server.server import Server


def test_every_product_that_fits_a_caption_is_right_and_some_have_few_of_their_kind() -> None:
    truth = {f"p{n}": Truth("mug", "striped" if n < 2 else "plain", "a red mug") for n in range(4)}
    truth["p4"] = Truth("lamp", "plain", "a red lamp")
    assert [(query.text, [*query.grades]) for query in text_queries(truth)] == [
        ("a red mug", ["p0", "p1", "p2", "p3"]),
        ("a red lamp", ["p4"]),
    ]
    assert possible(truth, ["p0", "p4"]) == pytest.approx({"same type": 0.3, "same type and pattern": 0.1})


def test_the_gateway_finds_what_an_exact_search_finds(server: Server, tmp_path: Path) -> None:
    shop_figures.main(["--products", "30", "--scenes", "36", "--out", str(tmp_path), "--url", server.grpc_url])
    report = json.loads((tmp_path / "figures.json").read_text())
    text = report["text"]
    assert text["gateway and index"] == text["exact search"]
    assert text["exact search"]["value"] >= 0.8
    assert report["photos"] == {"embedded": 36}
    assert list(report["ablation"]["steps"]) == ["whole image", "+ grounding", "+ enriched text", "+ words (fusion)"]
    for name in ("same type", "same type and pattern"):
        best = report["similar"]["possible"][name]
        assert all(report["similar"][images][name]["value"] <= best + 1e-9 for images in ("whole image", "grounded"))
    assert "| at best |" in (tmp_path / "figures.md").read_text()
    queries, bad = read_judgements(tmp_path / "judgements.jsonl")
    assert not bad
    assert {query.kind for query in queries} == {"text", "product"}
