"""What `vlclip` needs: the import only numpy and tritonclient, since services pay for it at every start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import vlclip
from tests.client.conftest import FakeTriton
from vlclip.cli import USAGE

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(vlclip.__file__).parents[1])}

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
    command = [sys.executable, "-c", PROGRAM, triton.address]
    done = subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["vlclip", "7.0"]


def test_the_command_line_without_rich() -> None:
    program = (
        "import sys; sys.modules['rich'] = None; import importlib.util as u; find = u.find_spec;"
        "u.find_spec = lambda name, *a: None if name == 'rich' else find(name, *a);"
        "from vlclip.cli import main; sys.exit(main(['health']))"
    )
    done = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        USAGE,
        "vlclip: the command line needs rich: pip install rich (in a checkout of VL-CLIP: pip install '.[cli]')\n",
    )
