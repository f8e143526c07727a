"""The documents name only commands, options, modules, make targets, files and sections that exist."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from serving.__main__ import COMMANDS
from serving.paths import ROOT

PAGES = {
    path: path.read_text() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "benchmarks/RESULTS.md"]
}
MAKEFILE = (ROOT / "Makefile").read_text()
COMPOSE = ROOT / "deploy/compose.yaml"
FOLDERS = "model_repository|ensembles|examples|serving|export|search|training|benchmarks|deploy|weights|tests|docs"
MADE = {"model_repository/manifest.json", "serving/profiles/tuned"}
"""Files that commands write."""
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def code(page: Path) -> str:
    """The code blocks and inline code of a page."""
    found = re.findall(r"^```\w*\n(.*?)^```|`([^`\n]+)`", PAGES[page], re.MULTILINE | re.DOTALL)
    return "\n".join(block or inline for block, inline in found)


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub links to them."""
    headings = re.findall(r"^#+ (.*)", PAGES[page], re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@every_page
def test_make_targets_exist(page: Path) -> None:
    targets = {*re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)}
    assert {*re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)", code(page))} <= targets


@every_page
def test_modules_and_options_exist(page: Path) -> None:
    commands = re.findall(r"python3? -m ([\w.]+)(.*(?:\\\n.*)*)", code(page))
    for module, rest in commands:
        package = ROOT / module.partition(".")[0]
        if not package.is_dir():
            continue
        assert find_spec(module), module
        if module == "serving":
            assert not rest.strip() or rest.split()[0] in COMMANDS
        source = "".join(file.read_text() for file in package.rglob("*.py"))
        options = re.findall(r"(?<= )--[a-z][a-z-]+", rest.split("#")[0].split(" -- ")[0])
        assert not {option for option in options if option != "--help" and f'"{option}"' not in source}, module


@every_page
def test_links_and_paths_exist(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", PAGES[page]):
        linked = (page.parent / target).resolve() if target else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), f"{target}#{anchor}"
    named = {path.rstrip("/.") for path in re.findall(rf"(?<![\w/.-])(?:{FOLDERS})/[\w/.-]+", code(page))}
    assert not {path for path in named if not (ROOT / path).exists()} - MADE


@every_page
def test_environment_variables_exist(page: Path) -> None:
    files = [
        *ROOT.glob("serving/**/*.py"),
        *ROOT.glob("client/**/*.py"),
        *ROOT.glob("search/**/*.py"),
        *ROOT.glob("tests/**/*.py"),
        COMPOSE,
    ]
    known = {*re.findall(r"VLCLIP_\w+", "".join(file.read_text() for file in files))}
    assert {*re.findall(r"\bVLCLIP_\w+", code(page))} <= known
