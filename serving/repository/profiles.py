"""What differs between deployments: a profile is a folder of fragments, each for the config of one model.

    serving/profiles/ngc-tensorrt/detect.pbtxt      what ngc-tensorrt lays over model_repository/detect/config.pbtxt

A fragment is a ModelConfig in text format, of a few lines. It is laid over the hand-written config field by field:

    a number, a string        replaces                  max_batch_size: 16
    a message                 is laid over likewise     dynamic_batching { max_queue_delay_microseconds: 500 }
    a map                     replaces by key           parameters { key: "intra_op_thread_count" value: { … } }
    a list                    replaces as a whole       instance_group [ { count: 4 } ]

What callers depend on, it cannot change: tensors, the kind of model, the wiring, versions; batches can only become
smaller. A zero says nothing. A profile is complete in its folder; a folder elsewhere is one too, by its path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import Message
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.errors import SetupError

PROFILES = Path(__file__).parents[1] / "profiles"
EMBEDDED_CPU = "embedded-cpu"
EMBEDDED = "embedded-"
"""How the names of those profiles begin that the embedded server can serve."""

MAY_SAY = (
    "backend",
    "cc_model_filenames",
    "default_model_filename",
    "dynamic_batching",
    "ensemble_scheduling",
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
"""The fields of a ModelConfig that are a deployment's to decide."""

Profile = str | Path
"""The name of a folder in serving/profiles, or the path of one elsewhere."""


def profile_names() -> list[str]:
    return sorted(path.name for path in PROFILES.iterdir() if path.is_dir())


def folder_of(profile: Profile) -> Path:
    """Raises SetupError where there is no such profile."""
    for folder in (PROFILES / profile, Path(profile)):
        if any(folder.glob("*.pbtxt")):
            return folder
    raise SetupError(f"there is no profile {profile}: it is {', '.join(profile_names())}, or a folder of fragments")


def fragments_of(profile: Profile) -> dict[str, Path]:
    """The fragments' files by the model that they are for. Raises SetupError."""
    return {path.stem: path for path in sorted(folder_of(profile).glob("*.pbtxt"))}


def read_config(model: Path, profile: Profile | None = None) -> ModelConfig:
    """A model's config, with what the profile has for it laid over.

    Raises SetupError for a file that is no config, and for a fragment that says what is not its to say.
    """
    config = parse(model / "config.pbtxt")
    config.name = config.name or model.name
    fragment = fragments_of(profile).get(model.name) if profile else None
    if fragment:
        said = parse(fragment)
        if why := find_trespass(config, said):
            raise SetupError(f"{fragment} {why}")
        lay_over(config, said)
    return config


def parse(file: Path) -> ModelConfig:
    """Raises SetupError for a file that cannot be read, or is no config to the tritonclient that is installed."""
    try:
        return text_format.Parse(file.read_text(), ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise SetupError(f"{file} is no model config: {error}") from error


def find_trespass(base: ModelConfig, fragment: ModelConfig) -> str | None:
    """What of the contract a fragment would change, in words; None where it leaves it alone."""
    said = {field.name for field, _ in fragment.ListFields()}
    if foreign := sorted(said.difference(MAY_SAY)):
        return f"must not say {', '.join(foreign)}: of a config, a profile decides {', '.join(MAY_SAY)}"
    is_pipeline = base.HasField("ensemble_scheduling")
    if is_pipeline and (foreign := sorted(said - {"ensemble_scheduling", "max_batch_size", "metric_tags"})):
        return f"must not say {', '.join(foreign)}: a pipeline is wiring only, its leaves have fragments of their own"
    if "ensemble_scheduling" in said:
        wiring = {field.name for field, _ in fragment.ensemble_scheduling.ListFields()} - {"max_inflight_requests"}
        if wiring or not is_pipeline:
            return "must not say the steps of a pipeline: of ensemble_scheduling, max_inflight_requests alone"
    if fragment.max_batch_size > base.max_batch_size:
        return f"raises max_batch_size from {base.max_batch_size} to {fragment.max_batch_size}: it can only lower it"
    return None


def lay_over(base: Any, fragment: Any) -> None:
    """Change the message ``base`` as ``fragment``, another of its kind, says: see the head of this file."""
    for field, value in fragment.ListFields():
        mine = getattr(base, field.name)
        if isinstance(value, Message):
            mine.SetInParent()
            lay_over(mine, value)
        elif isinstance(value, Mapping):
            mine.MergeFrom(value)
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            base.ClearField(field.name)
            getattr(base, field.name).MergeFrom(value)
        else:
            setattr(base, field.name, value)


def find_unservable(config: ModelConfig) -> str | None:
    """What in a config the embedded Triton, 2.51, cannot serve, in words; None where it can serve all of it."""
    if config.ensemble_scheduling.max_inflight_requests:
        return "max_inflight_requests is newer than the embedded Triton, which would not start"
    policies = [config.dynamic_batching.default_queue_policy, *config.dynamic_batching.priority_queue_policy.values()]
    if any(policy.max_queue_size for policy in policies):
        return "max_queue_size makes the embedded Triton's pipelines hang when the queue is full (mended in 26.03)"
    return None
