"""What the hand-written configs keep to; that they and the pipelines fit is for tests/deploy/test_check.py."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from serving.paths import REPOSITORIES
from serving.repository.specs import LEAVES, PIPELINES

MODELS, ENSEMBLES = REPOSITORIES
FOLDERS = {**dict.fromkeys(LEAVES, MODELS), **dict.fromkeys(PIPELINES, ENSEMBLES)}


def read(name: str) -> ModelConfig:
    return text_format.Parse((FOLDERS[name] / name / "config.pbtxt").read_text(), ModelConfig())


@pytest.mark.parametrize("name", FOLDERS)
def test_config_leaves_out_what_the_files_decide(name: str) -> None:
    config = read(name)
    assert not config.name
    assert not config.backend
    for group in config.instance_group:
        assert (group.count, group.kind, list(group.gpus)) == (1, ModelInstanceGroup.KIND_AUTO, [])


@pytest.mark.parametrize("name", LEAVES)
def test_requests_are_batched_without_waiting_for_more(name: str) -> None:
    config = read(name)
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.max_queue_delay_microseconds == 0


@pytest.mark.parametrize("name", PIPELINES)
def test_no_two_steps_are_at_work_at_once(name: str) -> None:
    """When a step fails while another of the same request is at work, Triton 2.51 may crash or never answer again."""
    last = {tensor.name for tensor in PIPELINES[name].inputs}
    for step in read(name).ensemble_scheduling.step:
        assert set(step.input_map.values()) & last, step.model_name
        last = set(step.output_map.values())


def test_grounding_alone_leaves_the_pixels_out() -> None:
    (crop,) = (step for step in read("ground").ensemble_scheduling.step if step.model_name == "crop")
    assert set(crop.output_map) == {"BOX", "STATUS"}


@pytest.mark.parametrize("name", PIPELINES)
def test_version_folder_is_in_git(name: str) -> None:
    assert (ENSEMBLES / name / "1" / ".gitkeep").exists()
