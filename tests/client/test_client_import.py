"""`import vlclip` is light: services pay for it at every start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import vlclip

HEAVY = {"torch", "PIL", "pandas", "onnxruntime", "transformers", "tensorrt", "scipy", "rich", "cv2"}

PROGRAM = """
import json, sys, time
import grpc, numpy
before, start = set(sys.modules), time.process_time()
import vlclip
print(json.dumps({"seconds": time.process_time() - start, "modules": sorted(set(sys.modules) - before)}))
"""


def imported() -> dict:
    room = str(Path(vlclip.__file__).parents[1])
    program = f"import sys; sys.path.insert(0, {room!r})\n{PROGRAM}"
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    return json.loads(output)


def test_import_is_light_and_alone():
    found = imported()
    roots = {name.split(".")[0] for name in found["modules"]}
    assert "vlclip" in roots
    assert not roots & HEAVY
    assert not roots & {"export", "benchmarks", "deploy", "training"}  # the client imports nothing of ours
    assert min(found["seconds"], imported()["seconds"]) < 0.4
