"""The mini models in git: what is shipped is what this code would export."""

from __future__ import annotations

from export.encoder_sources import resolve_encoder
from export.install import SHIPPED
from export.sources import MINI, resolve_detector
from serving.repository.manifest import Manifest


def test_shipped_graphs_come_from_the_shipped_weights() -> None:
    manifest = Manifest.read(SHIPPED / "manifest.json")
    assert manifest is not None
    assert manifest.request.detector == resolve_detector("mini").describe()
    assert manifest.request.encoder == resolve_encoder("mini").describe()
    for leaf in ("encode_image", "encode_text", "encode_prompt"):
        assert manifest.leaves[leaf].parity["cosine_min"] > 0.999999
    assert manifest.leaves["detect"].parity["score_difference_max"] < 1e-5


def test_shipped_files_are_small_enough_for_git() -> None:
    total = sum(file.stat().st_size for file in MINI.rglob("*") if file.is_file())
    assert total <= 25_000_000
