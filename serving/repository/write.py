"""Write a model repository for a Triton that you start yourself, such as NVIDIA's container.

    python -m serving write --profile ngc-tensorrt --out DIR
    tritonserver --model-repository=DIR

DIR gets the pipelines and the served version of the models, with the profile's configs. The files are copied, so that
you can mount DIR or put it into an image or a bucket.

The Python models import the package ``serving``, so install it where that Triton runs: `pip install ./serving`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from serving.errors import SetupError
from serving.paths import REPOSITORIES
from serving.repository.check import find_problems
from serving.repository.folders import find_home, require_artefacts
from serving.repository.manifest import read_served
from serving.repository.profiles import Profile, profile_names
from serving.repository.view import View

FILES = {"tensorrt": "model.plan", "onnxruntime": "model.onnx"}
"""The file that each of Triton's backends runs."""


def write_repository(repositories: Sequence[Path], profile: Profile, out: Path) -> list[str]:
    """Write the new folder ``out``; returns the names of its models. Raises SetupError."""
    require_artefacts(repositories)
    if problems := find_problems(repositories, profile):
        raise SetupError("\n".join(problems))
    if out.exists() and any(out.iterdir()):
        raise SetupError(f"{out} is not empty: name a new folder")
    home = find_home(repositories)
    manifest = read_served(home) if home else None
    with tempfile.TemporaryDirectory(prefix="vlclip-") as folder:
        view = View(Path(folder), repositories, profile)
        for name, leaf in manifest.leaves.items() if manifest else ():
            wanted = FILES.get(view.configs[name].backend)
            if wanted and leaf.file != wanted:
                raise SetupError(f"{profile} serves {name} from {wanted}, and {home} has {leaf.file}: export it again")
        for model in view.models:
            view.write(model, manifest)
        shutil.copytree(folder, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return view.models


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m serving write", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    models, ensembles = REPOSITORIES
    add = parser.add_argument
    add("--profile", required=True, metavar="NAME", help=f"{', '.join(profile_names())}, or a folder of fragments")
    add("--out", required=True, type=Path, metavar="DIR", help="a new folder")
    add("--model-repository", type=Path, default=models, metavar="DIR", help="the models (model_repository/)")
    add("--ensembles", type=Path, default=ensembles, metavar="DIR", help="the pipelines (ensembles/)")
    arguments = parser.parse_args()
    try:
        written = write_repository([arguments.model_repository, arguments.ensembles], arguments.profile, arguments.out)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(written)} models: tritonserver --model-repository={arguments.out.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
