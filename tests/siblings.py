"""The files beside a ``model.py``, imported as Triton's stub does: each under its own plain name."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from deploy.serve import ROOT


def load(model: str, *names: str) -> list[ModuleType]:
    """In order, so that each finds those before it. A name can be of one model only, since it is a global one."""
    return [_load(model, name) for name in names]


def _load(model: str, name: str) -> ModuleType:
    file = ROOT / "model_repository" / model / "1" / f"{name}.py"
    known = sys.modules.get(name)
    if known is not None:
        if known.__file__ != str(file):
            raise ImportError(f"{name} is already {known.__file__}, so {file} cannot be imported")
        return known
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec
    assert spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
