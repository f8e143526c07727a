"""What the embedded Triton needs is found, or its absence explained."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from serving.errors import SetupError
from serving.server.embedded import (
    assemble,
    find_tritonserver,
    holds_packages,
    link,
    link_libpython,
    make_environment,
    make_runtime_folder,
    require_numpy_1,
)
from serving.server.options import NEWER_OPTIONS, fixed_options, newer_options


def install(folder: Path, numpy: str) -> str:
    """Make a folder look as if pip had installed this numpy into it."""
    metadata = folder / f"numpy-{numpy}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: numpy\nVersion: {numpy}\n")
    return str(folder)


def test_a_missing_triton_is_reported_with_the_command_that_installs_it(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"(?s)found no tritonserver in .*make setup.*nvidia-pytriton"):
        find_tritonserver(str(tmp_path))


def test_a_full_installation_needs_nothing(tmp_path: Path) -> None:
    binary = tmp_path / "bin" / "tritonserver"
    binary.parent.mkdir()
    binary.touch()
    assert assemble(binary, tmp_path / "runtime") == ([], {})


@pytest.mark.parametrize(
    ("found", "is_fine"), [(["1.26.4", "2.4.6"], True), (["2.4.6", "1.26.4"], False), (["2.4.6"], False), ([], False)]
)
def test_the_first_numpy_on_the_path_must_be_numpy_1(tmp_path: Path, found: list[str], is_fine: bool) -> None:
    packages = [str(tmp_path), *(install(tmp_path / str(i), numpy) for i, numpy in enumerate(found))]
    if is_fine:
        require_numpy_1(packages)
    else:
        with pytest.raises(SetupError, match=r"numpy 1 only.*\n.*pip install .*numpy==1\.26\.4"):
            require_numpy_1(packages)


def test_folders_that_pip_has_installed_into_are_known_by_what_they_hold(tmp_path: Path) -> None:
    """``pip install --target`` takes any folder, which PYTHONPATH then names."""
    install(tmp_path / "wheels", "2.4.6")
    for name in ("dist-packages", "code"):
        (tmp_path / name).mkdir()
    (tmp_path / "code" / "program.py").touch()
    found = {folder.name for folder in tmp_path.iterdir() if holds_packages(folder)}
    assert found == {"wheels", "dist-packages"}
    assert not holds_packages(tmp_path / "missing")


def test_the_environment_imports_from_the_given_folders_in_order(tmp_path: Path) -> None:
    elsewhere, links = tmp_path / "else where: ü", tmp_path / "links"
    elsewhere.mkdir()
    (elsewhere / "numpy.py").write_text("__version__ = 'ours'")
    packages = [str(link(elsewhere, links)), *(path for path in sys.path if path.endswith("-packages"))]
    python = make_environment(tmp_path / "env", packages, links) / "python3"
    program = "import numpy, pytest; print(numpy.__version__)"
    # Like the stub: without PYTHONPATH and the current folder, and with ASCII paths.
    command = [str(python), "-I", "-X", "utf8=0", "-c", program]
    printed = subprocess.run(command, env={"LC_ALL": "C"}, check=True, capture_output=True, text=True).stdout
    assert printed == "ours\n"


@pytest.mark.parametrize(
    ("name", "is_plain"), [("tmp-1.2_3", True), ("a b", False), ("ü", False), ("a;b", False), ("x" * 101, False)]
)
def test_a_servers_own_files_have_a_plain_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_plain: bool
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    folder = make_runtime_folder()
    folder.rmdir()
    assert (folder.parent == tmp_path / name) == is_plain
    assert link(tmp_path, tmp_path / "links") == tmp_path


def test_a_folder_of_libraries_that_cannot_be_read_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is too long for the file system is an error for root too, unlike a missing permission."""
    unreadable = "/" + 300 * "x"
    monkeypatch.setitem(sysconfig.get_config_vars(), "LIBDIR", unreadable)
    monkeypatch.setattr(sys, "base_prefix", unreadable)
    with suppress(SetupError):
        link_libpython(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_embedded_triton_knows_the_fixed_options_and_none_of_the_newer_ones() -> None:
    binary = find_tritonserver()
    listed = subprocess.run([binary, "--help"], capture_output=True, text=True).stderr
    assert not [option.name for option in NEWER_OPTIONS if option.name in listed]
    assert newer_options(binary) == []
    names = {option.partition("=")[0] for option in fixed_options(Path("view"), "prefix")}
    assert not [name for name in names if name not in listed]
