"""docs/licences.md against pyproject.toml and what the installed packages say of themselves."""

from __future__ import annotations

import importlib.metadata
import re
from collections import defaultdict

import pytest

from serving.paths import ROOT

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")

TOOLS = {"dev", "bench"}
"""Extras that no user of the models needs."""
SAME = {
    "apache software license": "apache-2.0",
    "apache 2.0": "apache-2.0",
    "apache 2.0 license": "apache-2.0",
    "bsd license": "bsd",
    "mit license": "mit",
}
"""Classifiers and older names."""


def dependencies() -> dict[str, list[str]]:
    """Of the client and of every extra but the tools, with the extras that name them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = defaultdict(list)
    for extra, lines in {"client": project["dependencies"], **project["optional-dependencies"]}.items():
        for line in lines if extra not in TOOLS else ():
            found[normal(re.split(r"[^\w.-]", line)[0])].append(extra)
    return {package: extras for package, extras in sorted(found.items()) if package != "vlclip"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def rows() -> list[tuple[str, str, str]]:
    """Package, extras and licence."""
    text = (ROOT / "docs/licences.md").read_text()
    found = re.findall(r"^\| ([\w.-]+) \| ([\w, ]+) \| (.+) \|$", text, re.MULTILINE)
    return [(normal(name), extras, licence) for name, extras, licence in found if name not in ("package", "what")]


def table() -> dict[str, str]:
    return {package: licence for package, _, licence in rows()}


@pytest.mark.parametrize("package", dependencies())
def test_is_in_the_table_as_it_declares_itself(package: str) -> None:
    assert package in table(), "add it to docs/licences.md"
    try:
        metadata = importlib.metadata.metadata(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is for a GPU, and not installed")
    short = metadata["License"] if len(metadata["License"] or "") < 40 else None
    classifiers = [one.split(" :: ")[-1] for one in metadata.get_all("Classifier") or [] if one.startswith("License")]
    declared = (metadata["License-Expression"] or short or (classifiers or [""])[0]).lower()
    # The first of several, which is the package's own; torch names those of its parts in the order of the alphabet.
    own = "bsd-3-clause" if package == "torch" else re.split(r" and | or ", SAME.get(declared, declared))[0]
    assert own.removesuffix(" license") in table()[package].lower()


def test_the_table_has_them_with_their_extras_and_nothing_else() -> None:
    assert {package: sorted(extras.split(", ")) for package, extras, _ in rows()} == {
        package: sorted(extras) for package, extras in dependencies().items()
    }


def test_what_serves_is_free_of_copyleft() -> None:
    serving = ["numpy", "tritonclient", "grpcio", "onnxruntime", "tokenizers", "pillow"]
    assert not [name for name in serving if "GPL" in table()[name]]
    assert "AGPL" in table()["ultralytics"]
