"""The trained mini models, where they are: what is shipped is what this code would export."""

from __future__ import annotations

import pytest

from export.install import ARCHIVE, SHIPPED
from export.repository import read_manifest
from export.sources import MINI

HAS_WEIGHTS = (MINI / "detector.pt").is_file() and (MINI / "encoder" / "open_clip_model.safetensors").is_file()
HAS_GRAPHS = (SHIPPED / ARCHIVE).is_file()


@pytest.mark.skipif(not HAS_GRAPHS, reason="weights/mini/graphs is not packed yet")
def test_shipped_graphs_come_from_the_shipped_weights():
    manifest = read_manifest(SHIPPED / "manifest.json")
    assert manifest is not None
    if HAS_WEIGHTS:
        from export.sources import resolve_detector, resolve_encoder

        assert manifest["request"]["detector"] == resolve_detector("mini").describe()
        assert manifest["request"]["encoder"] == resolve_encoder("mini").describe()
    for leaf in ("encode_image", "encode_text", "encode_prompt"):
        assert manifest["leaves"][leaf]["parity"]["cosine_min"] > 0.999999


@pytest.mark.skipif(not HAS_GRAPHS, reason="weights/mini/graphs is not packed yet")
def test_shipped_files_are_small_enough_for_git():
    total = sum(file.stat().st_size for file in MINI.rglob("*") if file.is_file())
    assert total <= 25_000_000


@pytest.mark.slow
@pytest.mark.skipif(not HAS_WEIGHTS, reason="weights/mini is not trained yet")
def test_mini_exports(tmp_path):
    from export.build import build, make_request

    manifest = build(make_request("mini", "mini", threshold=0.1), tmp_path, say=lambda line: None)
    assert manifest["leaves"]["detect"]["parity"]["score_difference_max"] < 1e-5
