"""What Triton is told of each model when it loads it: the hand-written config, and the version of what was exported.

The configs name no version, so they fit any. But a pipeline that took whatever is newest would, while a new version
comes in leaf by leaf, give a prompt encoded by one version to the detector of another. So every pipeline is loaded
with the version of its leaves written into it, and changes it for all of them in one moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from deploy.embedded import SetupError
from export.repository import ARTEFACTS, Manifest

Config = dict[str, Any]
"""A ModelConfig as JSON, the form in which Triton takes it with a request to load."""

BACKENDS = {"model.onnx": "onnxruntime", "model.plan": "tensorrt"}


def read_configs(repositories: Sequence[Path | str], profile: str | None = None) -> dict[str, Config]:
    """The config of every model by its name, with ``configs/PROFILE.pbtxt`` appended where a model has that.

    Raises SetupError for a file that is no config.
    """
    configs = {}
    for file in sorted(path for folder in repositories for path in Path(folder).glob("*/config.pbtxt")):
        model = file.parent.name
        fragment = file.parent / "configs" / f"{profile}.pbtxt"
        text = "\n".join(part.read_text() for part in (file, fragment) if part.is_file())
        try:
            parsed = text_format.Parse(text, ModelConfig(name=model))
        except text_format.ParseError as error:
            raise SetupError(f"{file} is no model config: {error}") from error
        configs[model] = json_format.MessageToDict(parsed, preserving_proto_field_name=True)
    return configs


def is_pipeline(config: Config) -> bool:
    return config.get("platform") == "ensemble"


def file_of(leaf: str, manifest: Manifest) -> str:
    """What a version serves a leaf from: model.onnx, model.plan or tokenizer.json."""
    name: str = manifest["leaves"][leaf].get("file", ARTEFACTS.get(leaf, ""))
    return name


def at_version(config: Config, manifest: Manifest | None, beside: Sequence[int] = ()) -> Config:
    """The config for the version of ``manifest``; a leaf keeps the versions ``beside`` loaded too."""
    if manifest is None:
        return config
    leaves, version = manifest["leaves"], manifest["version"]
    if config["name"] in leaves:
        # Left to itself, Triton looks for the backend's file in the lowest version, whichever is to be served.
        backend = BACKENDS.get(file_of(config["name"], manifest), config.get("backend", "python"))
        return {**config, "backend": backend, "version_policy": {"specific": {"versions": [*beside, version]}}}
    if is_pipeline(config):
        steps = [
            {**step, "model_version": version} if step["model_name"] in leaves else step
            for step in config["ensemble_scheduling"]["step"]
        ]
        return {**config, "ensemble_scheduling": {**config["ensemble_scheduling"], "step": steps}}
    return config
