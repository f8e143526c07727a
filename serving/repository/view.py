"""The models as Triton sees them: a folder of configs for one exported version, and links to the files.

    view/detect/config.pbtxt            the config with the profile's fragments, and version_policy { … 2 }
    view/detect/2 -> model_repository/detect/2
    view/ground/config.pbtxt            the same for a pipeline, and model_version: 2 in the step of every exported leaf
    view/ground/1 -> ensembles/ground/1

The configs of the repositories name no version. If a pipeline took the newest version of each leaf, it would, while the
leaves of a new version load one by one, pass a prompt encoded by one version to the detector of another. So each
pipeline names the version of its leaves and switches all of them in one step. Triton sees only the versions that it
serves, whatever was exported in the meantime.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.errors import SetupError
from serving.repository.manifest import ARTEFACTS, Manifest
from serving.repository.profiles import Profile, fragments_of, read_config
from serving.repository.specs import LEAVES, PIPELINES
from serving.repository.versions import MADE_BY, version_of


class View:
    """The models of ``repositories`` with a profile, which :meth:`write` puts into ``folder``.

    A Python leaf that no pipeline uses with this profile is left out. Raises SetupError for a file that is no config,
    and for a fragment that does not fit.
    """

    def __init__(self, folder: Path, repositories: Sequence[Path], profile: Profile | None = None) -> None:
        self.folder = folder
        self._sources = {
            config.parent.name: config.parent
            for config in sorted(path for repository in repositories for path in repository.glob("*/config.pbtxt"))
        }
        known = self._sources.keys() | LEAVES.keys() | PIPELINES.keys()
        if profile and (unknown := sorted(fragments_of(profile).keys() - known)):
            raise SetupError(f"{profile} has fragments for models that do not exist: {', '.join(unknown)}")
        configs = {model: read_config(source, profile) for model, source in self._sources.items()}
        pipelines = {model: config for model, config in configs.items() if config.platform == "ensemble"}
        used = {step.model_name for config in pipelines.values() for step in config.ensemble_scheduling.step}
        # A new version loads all exported leaves, so only others can be left out.
        unused = LEAVES.keys() - ARTEFACTS.keys() - used if pipelines else ()
        self.configs = {model: config for model, config in configs.items() if model not in unused}
        self.models = list(self.configs)
        self.pipelines = {model: [tensor.name for tensor in config.input] for model, config in pipelines.items()}

    def write(self, model: str, manifest: Manifest | None, others: Sequence[int] = ()) -> None:
        """Put a model into the folder. Exported leaves get the version of ``manifest`` and the ``others``."""
        source, target = self._sources[model].resolve(), self.folder / model
        target.mkdir(parents=True, exist_ok=True)
        versions = {path.name for path in source.iterdir() if path.name.isdigit()}
        if manifest and model in manifest.leaves:
            versions = {str(version) for version in (*others, manifest.version)}
        for link in target.iterdir():
            if link.name.isdigit() and link.name not in versions:
                link.unlink()
        for version in versions:
            if not os.path.lexists(target / version):
                (target / version).symlink_to(source / version)
        new = self.folder / f".{model}"
        new.write_text(text_format.MessageToString(at_version(self.configs[model], manifest, others)))
        new.replace(target / "config.pbtxt")


def at_version(config: ModelConfig, manifest: Manifest | None, others: Sequence[int] = ()) -> ModelConfig:
    """The config for the version of ``manifest``. A leaf also keeps the ``others`` loaded."""
    result = ModelConfig()
    result.CopyFrom(config)
    leaves = manifest.leaves if manifest else {}
    if manifest and config.name in leaves:
        result.version_policy.specific.versions[:] = [*others, manifest.version]
    if manifest and manifest.digests and config.name in MADE_BY:
        # For `vlclip models`: Triton's own version number of a pipeline is always 1.
        result.parameters["version"].string_value = version_of(config.name, manifest.digests)
        result.parameters["label"].string_value = manifest.label
    for step in result.ensemble_scheduling.step if config.platform == "ensemble" else ():
        if manifest and step.model_name in leaves:
            step.model_version = manifest.version
    return result
