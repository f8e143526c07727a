"""docs/licences.md against both pyproject.toml files and the metadata of the installed packages."""

from __future__ import annotations

import importlib.metadata
import re
from collections import defaultdict
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from serving.paths import ROOT

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")

TOOLS = {"dev", "bench"}
"""Extras that no user of the models needs."""
FOR_GPUS = {"nvidia-nvimgcodec-cu13", "onnxruntime-gpu"}
"""Packages that are not installed here."""
SYNONYMS = {
    "apache software license": "apache-2.0",
    "apache 2.0": "apache-2.0",
    "apache 2.0 license": "apache-2.0",
    "bsd license": "bsd",
    "mit license": "mit",
}
"""Classifiers and older names of licences."""


def project(folder: str) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    return table


def dependencies() -> dict[str, list[str]]:
    """Each package with the extras that need it."""
    client, serving = project("."), project("serving")
    extras = {"client": client["dependencies"], "serving": serving["dependencies"]}
    extras |= {name: lines for name, lines in client["optional-dependencies"].items() if name not in TOOLS}
    extras |= {f"serving[{name}]": lines for name, lines in serving["optional-dependencies"].items()}
    found = defaultdict(list)
    for extra, lines in extras.items():
        for line in lines:
            found[canonicalize_name(Requirement(line).name)].append(extra)
    return {package: sorted(names) for package, names in sorted(found.items()) if package != "vlclip"}


def table() -> dict[str, tuple[list[str], str]]:
    """The extras and the licence of each package."""
    text = (ROOT / "docs/licences.md").read_text().partition("not Python packages")[0]
    rows = re.findall(r"^\| ([\w.-]+) \| ([\w, \[\]]+) \| (.+) \|$", text, re.MULTILINE)
    return {canonicalize_name(name): (sorted(extras.split(", ")), licence) for name, extras, licence in rows[1:]}


@pytest.mark.parametrize("package", sorted({*dependencies()} - FOR_GPUS))
def test_the_table_has_the_declared_licence(package: str) -> None:
    metadata = importlib.metadata.metadata(package)
    short = metadata["License"] if len(metadata["License"] or "") < 40 else None
    classifiers = [one.split(" :: ")[-1] for one in metadata.get_all("Classifier") or [] if one.startswith("License")]
    declared = (metadata["License-Expression"] or short or (classifiers or [""])[0]).lower()
    # The first licence of several is the package's own; torch lists those of its parts in alphabetical order.
    own = "bsd-3-clause" if package == "torch" else re.split(r" and | or ", SYNONYMS.get(declared, declared))[0]
    assert own.removesuffix(" license") in table()[package][1].lower()


def test_the_table_has_every_package_with_its_extras() -> None:
    assert {package: extras for package, (extras, _) in table().items()} == dependencies()


def test_serving_needs_no_copyleft_package() -> None:
    needed = {name: licence for name, (extras, licence) in table().items() if {*extras} - {"export", "demo"}}
    assert {"numpy", "grpcio", "onnxruntime", "openai", "tokenizers"} <= needed.keys()
    assert not [name for name, licence in needed.items() if re.search(r"\bA?GPL", licence)]
    assert "AGPL" in table()["ultralytics"][1]


@pytest.mark.parametrize("folder", [".", "serving"])
def test_our_code_has_a_licence(folder: str) -> None:
    """In both packages: the licence of a package must be in its own folder."""
    text = (ROOT / folder / "LICENSE").read_text()
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert text == (ROOT / "LICENSE").read_text()
    assert (project(folder)["license"], project(folder)["license-files"]) == ("Apache-2.0", ["LICENSE"])


def test_no_message_names_a_package_of_ours_that_no_registry_has() -> None:
    files = [
        path
        for folder in ("client", "serving", "export", "benchmarks", "training")
        for path in (ROOT / folder).rglob("*.py")
    ]
    assert len(files) > 50
    assert not [path.name for path in files if re.search(r"pip install [^\n]*vlclip", path.read_text())]
