"""The models as Triton sees them: a folder of configs for one version of what was exported, and links to the files.

    view/detect/config.pbtxt            the hand-written config with the profile's, and version_policy { … 2 }
    view/detect/2 -> model_repository/detect/2
    view/ground/config.pbtxt            the hand-written config, and model_version: 2 in the step of every such leaf
    view/ground/1 -> ensembles/ground/1

The hand-written configs name no version, so they fit any. But a pipeline that took whatever is newest would, while a
new version comes in leaf by leaf, give a prompt encoded by one version to the detector of another. So each pipeline
names the version of its leaves, and changes over for all of them in one step. And whenever Triton looks at a model,
it finds what it was told to serve, whatever has been exported in the meantime.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.repository.manifest import Manifest
from serving.repository.profiles import Profile, read_config


class View:
    """The folder, and the models of ``repositories`` that go into it by :meth:`write`.

    Raises SetupError for a config that is none, or does not go with the profile.
    """

    def __init__(self, folder: Path, repositories: Sequence[Path], profile: Profile | None = None):
        self.folder = folder
        self._sources = {
            config.parent.name: config.parent
            for config in sorted(path for repository in repositories for path in repository.glob("*/config.pbtxt"))
        }
        self.configs = {model: read_config(source, profile) for model, source in self._sources.items()}
        self.models = list(self.configs)
        self.pipelines = {
            model: [tensor.name for tensor in config.input]
            for model, config in self.configs.items()
            if config.platform == "ensemble"
        }

    def write(self, model: str, manifest: Manifest | None, beside: Sequence[int] = ()) -> None:
        """Put a model in, in the version of ``manifest`` if it was exported; of a leaf, the versions ``beside`` too."""
        source, target = self._sources[model].resolve(), self.folder / model
        target.mkdir(parents=True, exist_ok=True)
        versions = {path.name for path in source.iterdir() if path.name.isdigit()}
        if manifest and model in manifest.leaves:
            versions = {str(version) for version in (*beside, manifest.version)}
        for link in target.iterdir():
            if link.name.isdigit() and link.name not in versions:
                link.unlink()
        for version in versions:
            if not os.path.lexists(target / version):
                (target / version).symlink_to(source / version)
        new = self.folder / f".{model}"
        new.write_text(text_format.MessageToString(at_version(self.configs[model], manifest, beside)))
        new.replace(target / "config.pbtxt")


def at_version(config: ModelConfig, manifest: Manifest | None, beside: Sequence[int] = ()) -> ModelConfig:
    """The config for the version of ``manifest``; a leaf keeps the versions ``beside`` loaded too."""
    result = ModelConfig()
    result.CopyFrom(config)
    leaves = manifest.leaves if manifest else {}
    if manifest and config.name in leaves:
        result.version_policy.specific.versions[:] = [*beside, manifest.version]
    for step in result.ensemble_scheduling.step if config.platform == "ensemble" else ():
        if manifest and step.model_name in leaves:
            step.model_version = manifest.version
    return result
