"""The weights of an encoder in a file, whatever the training wrapped around them."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from export.errors import SourceError, first_line

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which a training script stores the weights beside its epoch and its optimizer."""
PREFIXES = ("module.", "model.")
"""What DistributedDataParallel and Lightning put in front of every name."""
COMPILED = "_orig_mod."
"""What ``torch.compile`` puts in front of the names of a compiled module, which may be a part of the model."""
NOT_WEIGHTS = ("n_averaged", "input_resolution", "context_length", "vocab_size")
"""Numbers that AveragedModel and OpenAI's archives store among the weights."""


@contextmanager
def plain_checkpoint(file: Path) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """A file that open_clip can load with the weights of ``file``, and these weights by name.

    It is ``file`` itself, or a temporary copy without wrapper and prefixes.

    Raises:
        SourceError: the file is damaged, or holds no weights, or more than weights.
    """
    if file.suffix in (".npz", ".npy"):
        yield str(file), {}  # big_vision's format, which open_clip translates itself
        return
    content = read(file)
    weights = state_dict_of(content, file)
    if weights == content:  # compares the tensors by identity first
        yield str(file), weights
        return
    with tempfile.TemporaryDirectory(prefix="vlclip-weights-") as folder:
        copy = Path(folder, "weights.pt")
        torch.save(weights, copy)
        yield str(copy), weights


def read(file: Path) -> object:
    """What a checkpoint holds: tensors, containers and numbers. Other Python objects are not loaded."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):
            raise SourceError(
                f"{file} holds Python objects beside its weights, which could run code: save the weights alone, "
                "torch.save(model.state_dict(), FILE)"
            ) from error
        raise SourceError(f"{file} cannot be read: it is damaged, or no checkpoint") from error
    except SafetensorError as error:
        raise SourceError(f"{file} cannot be read: {first_line(error)}") from error
    except Exception as error:  # zip and the older formats raise errors of their own
        if "TorchScript" in str(error):
            raise SourceError(
                f"{file} is a TorchScript archive: save its weights, torch.save(torch.jit.load(FILE).state_dict(), NEW)"
            ) from error
        raise SourceError(f"{file} cannot be read: {first_line(error)}") from error


def state_dict_of(content: object, file: Path) -> dict[str, Tensor]:
    """The weights in what a training script saved, under the names of the model itself."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        raise SourceError(
            f"{file} holds a {type(content).__name__}: expected weights by name, as state_dict() gives them"
        )
    weights = {
        str(name).replace(COMPILED, ""): value
        for name, value in content.items()
        if isinstance(value, Tensor) and name not in NOT_WEIGHTS
    }
    if not weights:
        keys = ", ".join(sorted(map(str, content))[:6]) or "nothing"
        raise SourceError(f"{file} holds no weights under {', '.join(WRAPPERS)} or at its top: it has {keys}")
    while prefix := next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in weights)), None):
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights
