"""What differs between deployments: a profile is a folder of fragments, each laid over the configs of some models.

    serving/profiles/NAME/detect.pbtxt       laid over model_repository/detect/config.pbtxt
    serving/profiles/NAME/graphs.pbtxt       laid over the config of every graph
    serving/profiles/NAME/python.pbtxt       laid over the config of every Python leaf
    serving/profiles/NAME/pipelines.pbtxt    laid over the config of every pipeline
    serving/profiles/ngc/…                   fragments of all profiles for NVIDIA's container, which are laid first
    serving/profiles/embedded/…              the same for the embedded server

A folder elsewhere is a profile too, by its path. It is for the embedded server unless its name begins with ``ngc``.

A fragment is a ModelConfig in text format, of a few lines. It is laid over a config field by field:

    a number, a string      replaces                        max_batch_size: 16
    a message               is laid over in the same way    dynamic_batching { max_queue_delay_microseconds: 500 }
    a map                   replaces by key                 parameters { key: "intra_op_thread_count" value: { … } }
    a step of a pipeline    is laid over the step of the same model, or added
    an input                is added, which a Python leaf ignores, and on the embedded server a graph too
    any other list          replaces as a whole             instance_group [ { count: 4 } ]

A fragment cannot change what callers depend on: the tensors of a pipeline, the kind of a model, versions. It can only
lower max_batch_size. A field that is zero counts as absent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import Message
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.errors import SetupError
from serving.repository.manifest import ARTEFACTS, GRAPHS
from serving.repository.specs import PIPELINES

PROFILES = Path(__file__).parents[1] / "profiles"
EMBEDDED, CONTAINER = SERVERS = ("embedded", "ngc")
"""What the profiles for each server share; the profiles' names begin with these."""
EMBEDDED_CPU = "embedded-cpu"
KINDS = ("graphs", "python", "pipelines")
"""Names of the fragments for all models of a kind."""

ALLOWED = (
    "backend",
    "cc_model_filenames",
    "default_model_filename",
    "dynamic_batching",
    "ensemble_scheduling",
    "input",
    "instance_group",
    "max_batch_size",
    "metric_tags",
    "model_metrics",
    "model_operations",
    "model_warmup",
    "optimization",
    "parameters",
    "response_cache",
    "runtime",
)
"""The fields of a ModelConfig that a profile decides."""
MERGED = {"step": "model_name", "input": "name"}
"""Lists whose elements are laid over those of the same name."""

Profile = str | Path
"""The name of a folder in serving/profiles, or the path of a folder elsewhere."""


def profile_names() -> list[str]:
    return sorted(path.name for path in PROFILES.iterdir() if path.is_dir() and path.name not in SERVERS)


def server_of(profile: Profile) -> str:
    """The server that a profile is for, by its name."""
    return CONTAINER if Path(profile).name.startswith(CONTAINER) else EMBEDDED


def folder_of(profile: Profile) -> Path:
    """Raises SetupError where there is no such profile."""
    for folder in (PROFILES / profile, Path(profile)):
        if any(folder.glob("*.pbtxt")):
            return folder
    raise SetupError(f"there is no profile {profile}: it is {', '.join(profile_names())}, or a folder of fragments")


def fragments_of(profile: Profile) -> dict[str, Path]:
    """The files of a profile that are for one model each, by the name of the model. Raises SetupError."""
    return {path.stem: path for path in sorted(folder_of(profile).glob("*.pbtxt")) if path.stem not in KINDS}


def files_of(profile: Profile) -> list[Path]:
    """All files of a profile, in the order in which they are laid over the configs. Raises SetupError."""
    folders = dict.fromkeys([PROFILES / server_of(profile), folder_of(profile)])
    files = [sorted(folder.glob("*.pbtxt"), key=lambda file: file.stem not in KINDS) for folder in folders]
    return [file for part in files for file in part]


def files_for(model: str, is_pipeline: bool, profile: Profile) -> list[Path]:
    """The fragments for a model, in the order in which they are laid over its config. Raises SetupError."""
    kind = "pipelines" if is_pipeline else "graphs" if ARTEFACTS.get(model) in GRAPHS else "python"
    return [file for file in files_of(profile) if file.stem in (kind, model)]


def read_fragment(model: str, profile: Profile) -> ModelConfig:
    """All that a profile says about one of our models. Raises SetupError."""
    merged = ModelConfig()
    for file in files_for(model, model in PIPELINES, profile):
        lay_over(merged, parse(file))
    return merged


def read_config(model: Path, profile: Profile | None = None) -> ModelConfig:
    """The config in the folder ``model``, with the profile laid over it.

    Raises SetupError for a file that is no config, and for a fragment that sets what a profile must not change.
    """
    config = parse(model / "config.pbtxt")
    config.name = config.name or model.name
    is_pipeline = config.HasField("ensemble_scheduling")
    for file in files_for(model.name, is_pipeline, profile) if profile else ():
        fragment = parse(file)
        if why := find_violation(config, fragment, server_of(profile) if profile else EMBEDDED):
            raise SetupError(f"{file} {why}")
        lay_over(config, fragment)
    return config


def parse(file: Path) -> ModelConfig:
    """Raises SetupError for a file that cannot be read, or is no config to the installed tritonclient."""
    try:
        return text_format.Parse(file.read_text(), ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise SetupError(f"{file} is no model config: {error}") from error


def find_violation(base: ModelConfig, fragment: ModelConfig, server: str) -> str | None:
    """Why a fragment is not allowed, in words; None if it is."""
    fields = {field.name for field, _ in fragment.ListFields()}
    if foreign := sorted(fields.difference(ALLOWED)):
        return f"must not set {', '.join(foreign)}: a profile decides {', '.join(ALLOWED)}"
    is_pipeline = base.HasField("ensemble_scheduling")
    if is_pipeline and (foreign := sorted(fields - {"ensemble_scheduling", "max_batch_size", "metric_tags"})):
        return f"must not set {', '.join(foreign)}: a pipeline is wiring only, its leaves have fragments of their own"
    if "ensemble_scheduling" in fields and not is_pipeline:
        return "must not set ensemble_scheduling: it is for a leaf, and only pipelines have steps"
    if "input" in fields and ARTEFACTS.get(base.name) in GRAPHS and server == CONTAINER:
        return "must not set input: a graph takes the inputs of its file"
    if changed := [one.name for one in fragment.input for own in base.input if own.name == one.name and own != one]:
        return f"must not change the input {', '.join(changed)}: it can only add inputs"
    if fragment.max_batch_size > base.max_batch_size:
        return f"raises max_batch_size from {base.max_batch_size} to {fragment.max_batch_size}: it can only lower it"
    return None


def lay_over(base: Any, fragment: Any) -> None:
    """Change the message ``base`` as ``fragment``, a message of the same type, says: see the head of this file."""
    for field, value in fragment.ListFields():
        mine = getattr(base, field.name)
        if isinstance(value, Message):
            mine.SetInParent()
            lay_over(mine, value)
        elif isinstance(value, Mapping):
            mine.MergeFrom(value)
        elif field.name in MERGED:
            by_name = {getattr(one, MERGED[field.name]): one for one in mine}
            for one in value:
                lay_over(by_name.get(getattr(one, MERGED[field.name])) or mine.add(), one)
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            base.ClearField(field.name)
            getattr(base, field.name).MergeFrom(value)
        else:
            setattr(base, field.name, value)


def find_unservable(config: ModelConfig) -> str | None:
    """What the embedded Triton, 2.51, cannot serve of a config, in words; None if it can serve all of it."""
    elsewhere = "put it into a profile for NVIDIA's container, whose name begins with ngc"
    if config.ensemble_scheduling.max_inflight_requests:
        return f"the embedded Triton does not know max_inflight_requests and would not start: {elsewhere}"
    policies = [config.dynamic_batching.default_queue_policy, *config.dynamic_batching.priority_queue_policy.values()]
    if any(policy.max_queue_size for policy in policies):
        return f"with max_queue_size, the embedded Triton can hang when the queue is full: {elsewhere}"
    return None
