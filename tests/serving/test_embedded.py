"""What the embedded Triton needs, found or named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serving.errors import SetupError
from serving.paths import ROOT
from serving.server.embedded import assemble, find_tritonserver, make_environment, require_numpy_1


def install(folder: Path, numpy: str) -> str:
    """A folder that looks as if pip had put this numpy there."""
    metadata = folder / f"numpy-{numpy}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: numpy\nVersion: {numpy}\n")
    return str(folder)


def test_missing_triton_comes_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"(?s)found no tritonserver in .*make setup.*nvidia-pytriton"):
        find_tritonserver(str(tmp_path))


def test_asked_for_binary_is_taken(tmp_path: Path) -> None:
    binary = tmp_path / "tritonserver"
    binary.touch()
    assert find_tritonserver(str(binary)) == binary


def test_full_installation_is_left_as_it_is(tmp_path: Path) -> None:
    binary = tmp_path / "bin" / "tritonserver"
    binary.parent.mkdir()
    binary.touch()
    assert assemble(binary, tmp_path / "runtime") == ([], {})


@pytest.mark.parametrize(
    ("found", "fine"), [(["1.26.4", "2.4.6"], True), (["2.4.6", "1.26.4"], False), (["2.4.6"], False), ([], False)]
)
def test_the_first_numpy_on_the_way_must_be_a_1(tmp_path: Path, found: list[str], fine: bool) -> None:
    packages = [str(tmp_path), *(install(tmp_path / str(i), numpy) for i, numpy in enumerate(found))]
    if fine:
        require_numpy_1(packages)
    else:
        with pytest.raises(SetupError, match=r"numpy 1 only.*\n.*pip install .*numpy==1\.26\.4"):
            require_numpy_1(packages)


def test_environment_takes_modules_from_elsewhere_first(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "numpy.py").write_text("__version__ = 'ours'")
    packages = [str(tmp_path / "elsewhere"), *(path for path in sys.path if path.endswith("-packages"))]
    python = make_environment(tmp_path / "env", packages) / "python3"
    program = "import numpy, pytest; print(numpy.__version__)"
    # Isolated, as the stub runs it: no PYTHONPATH, no current folder.
    printed = subprocess.run([python, "-I", "-c", program], check=True, capture_output=True, text=True).stdout
    assert printed == "ours\n"


def test_a_folder_of_libraries_that_is_closed_to_us_is_passed_over(tmp_path: Path) -> None:
    """In a process of its own: root, who may look everywhere, must become somebody else."""
    closed, folder = tmp_path / "closed", tmp_path / "lib"
    for new in (closed, folder):
        new.mkdir()
    closed.chmod(0)
    program = f"""
import os, pathlib, sys, sysconfig
from serving.errors import SetupError
from serving.server.embedded import link_libpython
sysconfig.get_config_vars()["LIBDIR"] = sys.base_prefix = {str(closed)!r}
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    link_libpython(pathlib.Path({str(folder)!r}))
except SetupError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "" or "apt-get install libpython" in done.stdout
    assert not list(folder.iterdir())
