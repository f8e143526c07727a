"""Finds the `tritonserver` to run, and prepares what the embedded one needs.

The wheel `nvidia-pytriton` contains a complete Triton, of which only the binaries are used. Triton needs its backends
in one folder, with the Python backend's executable ("stub") for one version of Python. Every start assembles it:

    backends/python/         the wheel's Python backend, and the stub of the running Python
    backends/onnxruntime/    our implementation, see serving/backends
    lib/                     libpython, which the stub links
    links/                   links to folders with odd paths
    env/                     a virtual environment without packages, which adds the wheel folder's numpy and then the
                             running Python's packages to the stub's path

The environment is needed because the stub was built for numpy 1: with numpy 2 it reads every array as a repetition of
its first element. The stub ignores PYTHONPATH, so only an environment can change its path.

The stub's Python takes paths for ASCII whatever the locale is, and Triton starts it by a shell command in which paths
are not quoted. So everything that the stub is told lies in ``runtime``, whose path is plain, and other folders are
linked there if their paths have spaces, umlauts or colons.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib.metadata
import os
import re
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

import serving
from serving.errors import SetupError
from serving.server.stubs import SHARED_MEMORY

BACKENDS = ("onnxruntime",)
"""The packages of ``serving.backends``. Each implements Triton's backend of the same name."""
PYTHONS = ("3.10", "3.11", "3.12")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def find_tritonserver(where: str | None = None) -> Path:
    """The binary to run: ``where`` or VLCLIP_TRITON if given, else the one on the PATH, else the embedded one.

    ``where`` is a binary, or the folder into which the wheel was installed. Raises SetupError.
    """
    named = where or os.environ.get("VLCLIP_TRITON")
    if named:
        candidates = [Path(named), inside_wheel(Path(named))]
    else:
        on_path = shutil.which("tritonserver")
        folders = [Path(sys.prefix, "tritonserver"), Path(sysconfig.get_path("purelib"))]
        candidates = [Path(on_path)] if on_path else [inside_wheel(folder) for folder in folders]
    for binary in candidates:
        if binary.is_file():
            return binary.resolve()
    raise SetupError(
        "found no tritonserver in " + ", ".join(map(str, candidates)) + ": run `make setup`, or\n"
        f"    pip install --no-deps --target {sys.prefix}/tritonserver nvidia-pytriton==0.7.0 numpy==1.26.4"
    )


def make_runtime_folder() -> Path:
    """Make the folder of a server's own files, in TMPDIR if its path is plain. Raises SetupError."""
    try:
        preferred = tempfile.gettempdir()
    except OSError:
        preferred = "/tmp"
    for parent in (preferred, "/tmp", "/var/tmp", SHARED_MEMORY):
        if is_plain(parent):
            with contextlib.suppress(OSError):
                return Path(tempfile.mkdtemp(prefix="vlclip-", dir=parent))
    raise SetupError(
        f"cannot make a temporary folder in {preferred} or /tmp: set TMPDIR to a folder that can be written to, "
        "with a short path of ASCII letters and digits, without spaces"
    )


def is_plain(path: Path | str) -> bool:
    """Whether a path needs no quotes in a shell command or a list of paths, and is short ASCII."""
    return re.fullmatch(r"[\w./@+-]{1,100}", str(path), re.ASCII) is not None


def keep_from_cleaning(folder: Path) -> int:
    """Lock a temporary folder, so that systemd-tmpfiles does not delete what was not used for days; a restart needs it.

    Closing the file descriptor that it returns unlocks the folder.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def inside_wheel(folder: Path) -> Path:
    return folder / "pytriton" / "tritonserver" / "bin" / "tritonserver"


def is_embedded(binary: Path) -> bool:
    """Whether the binary is the wheel's, and not that of a full installation."""
    return (binary.parent.parent / "python_backend_stubs").is_dir()


def assemble(binary: Path, runtime: Path) -> tuple[list[str], dict[str, str]]:
    """Prepare the empty folder ``runtime``, and return options and environment variables for ``binary``.

    A full installation, such as NVIDIA's container, needs none. Raises SetupError.
    """
    if not is_embedded(binary):
        return [], {}
    home = binary.parent.parent
    wheel_folder = home.parent.parent
    if PYTHON not in PYTHONS:
        raise SetupError(f"this is Python {PYTHON}; the embedded Triton needs numpy 1 and so {', '.join(PYTHONS)}")
    stub = home / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
    package_folder = str(Path(serving.__file__).resolve().parents[1])
    packages = [str(wheel_folder), *(path for path in sys.path if holds_packages(Path(path))), package_folder]
    require_numpy_1(packages)
    links = runtime / "links"

    # Copies, because Triton refuses a backend that links to another folder.
    backends = runtime / "backends"
    for name in BACKENDS:
        (backends / name).mkdir(parents=True)
        (backends / name / "model.py").write_text(
            f"from serving.backends.{name}.model import TritonPythonModel as TritonPythonModel\n"
        )
    shutil.copytree(home / "backends" / "python", backends / "python", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(stub, backends / "python")

    libraries = [runtime / "lib", link(wheel_folder / "nvidia_pytriton.libs", links)]
    libraries[0].mkdir()
    link_libpython(libraries[0])
    commands = make_environment(runtime / "env", [str(link(Path(path), links)) for path in packages], links)
    return [f"--backend-directory={backends}"], {
        "LD_LIBRARY_PATH": join_paths(*libraries, os.environ.get("LD_LIBRARY_PATH")),
        "PATH": join_paths(commands, os.environ.get("PATH")),
        # Every hop allocates canvases of 1.2 MB. If malloc keeps their pages, the kernel need not map them each time.
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
        "MALLOC_TOP_PAD_": str(16 << 20),
    }


def holds_packages(folder: Path) -> bool:
    """Whether pip has installed packages into a folder, whatever its name: ``pip install --target`` takes any."""
    return folder.name.endswith("-packages") or any(folder.glob("*.dist-info"))


def require_numpy_1(packages: list[str]) -> None:
    """Raise SetupError if the first numpy in the folders ``packages`` is not numpy 1."""
    versions = [dist.version for dist in importlib.metadata.distributions(name="numpy", path=packages)]
    if not versions or not versions[0].startswith("1."):
        raise SetupError(
            f"the embedded Triton reads arrays of numpy 1 only, found {versions[0] if versions else 'none'}:\n"
            f"    pip install --no-deps --target {packages[0]} numpy==1.26.4"
        )


def link_libpython(folder: Path) -> None:
    """Link the running Python's shared library into ``folder``, if the loader does not find one by itself.

    Raises SetupError if there is none.
    """
    name = f"libpython{PYTHON}.so.1.0"
    for source in (sysconfig.get_config_var("LIBDIR") or "/usr/lib", f"{sys.base_prefix}/lib"):
        # Unlike Path.exists, this is also False for a folder that we are not allowed to read.
        if os.path.exists(Path(source, name)):
            (folder / name).symlink_to(Path(source, name))
            return
    try:
        ctypes.CDLL(name)
    except OSError:
        raise SetupError(
            f"the embedded Triton needs {name}, which {sys.executable} does not have. On Debian or Ubuntu:\n"
            f"    apt-get install libpython{PYTHON}\n"
            f"with pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install --force {PYTHON}"
        ) from None


def link(folder: Path, links: Path) -> Path:
    """The folder if its path is plain, else a link to it in the folder ``links``, which is made if needed."""
    if is_plain(folder):
        return folder
    links.mkdir(exist_ok=True)
    to = links / str(len(list(links.iterdir())))
    to.symlink_to(folder)
    return to


def make_environment(folder: Path, packages: list[str], links: Path) -> Path:
    """Make a virtual environment that imports from ``packages``, and return its bin folder."""
    python = Path(sys.executable).resolve()
    python = link(python.parents[1], links) / python.parent.name / python.name
    site_packages = folder / "lib" / f"python{PYTHON}" / "site-packages"
    site_packages.mkdir(parents=True)
    # Triton takes new bytecode next to a model.py for a change of the model, and would load the model twice.
    lines = [*packages, "import sys; sys.dont_write_bytecode = True"]
    (site_packages / "packages.pth").write_text("\n".join(lines) + "\n")
    (folder / "pyvenv.cfg").write_text(f"home = {python.parent}\ninclude-system-site-packages = false\n")
    commands = folder / "bin"
    commands.mkdir()
    (commands / "python3").symlink_to(python)
    return commands


def join_paths(*paths: Path | str | None) -> str:
    return os.pathsep.join(str(path) for path in paths if path)
