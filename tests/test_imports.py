"""Which packages may import which, and that no modules import each other in a circle.

Imports inside of functions count as well, since they are the usual way to hide a circle.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "vlclip": ROOT / "client",
    "serving": ROOT,
    "export": ROOT,
    "training": ROOT,
    "benchmarks": ROOT,
    "search": ROOT,
}
"""Our packages, and the folder that holds each."""
ALLOWED = {
    "vlclip": {"vlclip"},
    "serving": {"serving"},
    "search": {"search", "vlclip"},
    "export": {"export", "serving.decode", "serving.texts", "serving.repository", "serving.errors", "serving.paths"},
}


def modules_of(package: str) -> dict[str, Path]:
    folder = FOLDERS[package]
    files = (folder / package).rglob("*.py")
    return {".".join(file.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


MODULES = {name: file for package in FOLDERS for name, file in modules_of(package).items()}


def imports_of(module: str) -> Iterator[str]:
    """Our modules that a module imports anywhere in its file, except for type checkers."""
    for node in walk(ast.parse(MODULES[module].read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{module} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            target = name if name in MODULES else name.rpartition(".")[0]
            if target in MODULES and target != module:
                yield target


def walk(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    for child in ast.iter_child_nodes(node):
        yield from walk(child)


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: set(imports_of(module)) for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    for module in modules_of(package):
        for target in imports_of(module):
            allowed = any(target == name or target.startswith(f"{name}.") for name in ALLOWED[package])
            assert allowed, f"{module} imports {target}"
