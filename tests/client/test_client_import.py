"""`import vlclip` imports no package besides numpy and tritonclient: services import it at every start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import vlclip

PROGRAM = """
import sys
import numpy, tritonclient.grpc
before = {name.split(".")[0] for name in sys.modules}
import vlclip
print(*{name.split(".")[0] for name in sys.modules} - before - set(sys.stdlib_module_names))
"""


def test_import_is_light() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(vlclip.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["vlclip"]
