"""`import vlclip` imports no package besides numpy and tritonclient: services import it at every start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import vlclip
from tests.client.conftest import FakeTriton

PROGRAM = """
import sys
import numpy, tritonclient.grpc
before = {name.split(".")[0] for name in sys.modules}
import vlclip
print(*{name.split(".")[0] for name in sys.modules} - before - set(sys.stdlib_module_names))

sys.modules["opentelemetry"] = None  # as if it were not installed
with vlclip.Client(sys.argv[1]) as client:
    print(client.embed_texts("7").embedding[0, 0])
"""


def test_import_is_light_and_tracing_is_optional(triton: FakeTriton) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(vlclip.__file__).parents[1])}
    command = [sys.executable, "-c", PROGRAM, triton.address]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["vlclip", "7.0"]
