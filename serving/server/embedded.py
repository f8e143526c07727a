"""Where a `tritonserver` comes from, and what the embedded one needs around it.

The wheel `nvidia-pytriton` carries a whole Triton. Of that wheel only the binaries are used; Triton wants them in one
folder together with the Python backend's process ("stub") for one version of Python, so such a folder is assembled
anew at every start:

    backends/python/         the wheel's Python backend, and the stub of the running Python
    backends/onnxruntime/    our stand-in, see serving/backends
    lib/                     libpython, which the stub links
    env/                     a virtual environment without packages of its own, which leads the stub to the running
                             Python's packages, but to the wheel folder's numpy first

That last detour is needed because the stub was built for numpy 1: under numpy 2 it reads every array as a repetition
of its first element. The stub ignores PYTHONPATH, so an environment is the only way in.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import shutil
import sys
import sysconfig
from pathlib import Path

import serving
from serving.errors import SetupError

BACKENDS = ("onnxruntime",)
"""Backends of ours, each a package of ``serving.backends``, that stand in for Triton's of the same name."""
PYTHONS = ("3.10", "3.11", "3.12")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def find_tritonserver(where: str | None = None) -> Path:
    """The binary to run: what is asked for by option or VLCLIP_TRITON, else one on the PATH, else the embedded one.

    ``where`` is a binary, or the folder that the wheel was installed into. Raises SetupError.
    """
    asked = where or os.environ.get("VLCLIP_TRITON")
    if asked:
        candidates = [Path(asked), inside_wheel(Path(asked))]
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


def inside_wheel(folder: Path) -> Path:
    return folder / "pytriton" / "tritonserver" / "bin" / "tritonserver"


def is_embedded(binary: Path) -> bool:
    """Whether it is the wheel's, and no full installation."""
    return (binary.parent.parent / "python_backend_stubs").is_dir()


def assemble(binary: Path, runtime: Path) -> tuple[list[str], dict[str, str]]:
    """Prepare the empty folder ``runtime`` for ``binary``; return the options and the environment to start it with.

    A full installation, such as NVIDIA's container, needs neither. Raises SetupError.
    """
    if not is_embedded(binary):
        return [], {}
    home = binary.parent.parent
    wheel_folder = home.parent.parent
    if PYTHON not in PYTHONS:
        raise SetupError(f"the Python backend of this Triton needs numpy 1, hence Python {' or '.join(PYTHONS)}")
    stub = home / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
    package_folder = str(Path(serving.__file__).resolve().parents[1])
    packages = [str(wheel_folder), *(path for path in sys.path if path.endswith("-packages")), package_folder]
    require_numpy_1(packages)

    # Copies, because Triton refuses a backend that is a link out of its folder.
    backends = runtime / "backends"
    for name in BACKENDS:
        (backends / name).mkdir(parents=True)
        (backends / name / "model.py").write_text(
            f"from serving.backends.{name}.model import TritonPythonModel as TritonPythonModel\n"
        )
    shutil.copytree(home / "backends" / "python", backends / "python", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(stub, backends / "python")

    libraries = [runtime / "lib", wheel_folder / "nvidia_pytriton.libs"]
    libraries[0].mkdir()
    link_libpython(libraries[0])
    commands = make_environment(runtime / "env", packages)
    return [f"--backend-directory={backends}"], {
        "LD_LIBRARY_PATH": join_paths(*libraries, os.environ.get("LD_LIBRARY_PATH")),
        "PATH": join_paths(commands, os.environ.get("PATH")),
        # Canvases of 1.2 MB pass through malloc at every hop. Kept, their pages need not be faulted in each time.
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
        "MALLOC_TOP_PAD_": str(16 << 20),
    }


def require_numpy_1(packages: list[str]) -> None:
    """Refuse numpy 2 where the stub would find it, along ``packages``."""
    versions = [dist.version for dist in importlib.metadata.distributions(name="numpy", path=packages)]
    if not versions or not versions[0].startswith("1."):
        raise SetupError(
            f"the Python backend of this Triton reads arrays of numpy 1 only, found {versions[:1] or 'none'}:\n"
            f"    pip install --no-deps --target {packages[0]} numpy==1.26.4"
        )


def link_libpython(folder: Path) -> None:
    """Put a link to the running Python's shared library into ``folder``, unless the loader finds one by itself."""
    name = f"libpython{PYTHON}.so.1.0"
    own_folders = [sysconfig.get_config_var("LIBDIR") or "/usr/lib", f"{sys.base_prefix}/lib"]
    for own in own_folders:
        # Unlike pathlib's, this is False, too, for a folder that may not be looked into.
        if os.path.exists(Path(own, name)):
            (folder / name).symlink_to(Path(own, name))
            return
    try:
        ctypes.CDLL(name)
    except OSError:
        raise SetupError(
            f"the Python backend needs {name}, which {sys.executable} came without. On Debian or Ubuntu:\n"
            f"    apt-get install libpython{PYTHON}\n"
            f"with pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install --force {PYTHON}"
        ) from None


def make_environment(folder: Path, packages: list[str]) -> Path:
    """Make a virtual environment of the running Python that takes its modules from ``packages``; return its bin."""
    python = Path(sys.executable).resolve()
    site_packages = folder / "lib" / f"python{PYTHON}" / "site-packages"
    site_packages.mkdir(parents=True)
    # Bytecode written beside a model.py would count as a change of the model, and have Triton load it twice.
    lines = [*packages, "import sys; sys.dont_write_bytecode = True"]
    (site_packages / "elsewhere.pth").write_text("\n".join(lines) + "\n")
    (folder / "pyvenv.cfg").write_text(f"home = {python.parent}\ninclude-system-site-packages = false\n")
    commands = folder / "bin"
    commands.mkdir()
    (commands / "python3").symlink_to(python)
    return commands


def join_paths(*paths: Path | str | None) -> str:
    return os.pathsep.join(str(path) for path in paths if path)
