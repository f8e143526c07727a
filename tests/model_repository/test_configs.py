"""The hand-written configs, and how the pipelines are wired for each server."""

from __future__ import annotations

import pytest
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelEnsembling

from serving.paths import REPOSITORIES
from serving.repository.profiles import profile_names, read_config, server_of
from serving.repository.specs import LEAVES, PIPELINES

MODELS, ENSEMBLES = REPOSITORIES
FIRST = ("tokenize_prompt", "tokenize", "enrich")
"""The first steps of the pipelines."""
FOLDERS = {**dict.fromkeys(LEAVES, MODELS), **dict.fromkeys(PIPELINES, ENSEMBLES)}


def read(name: str, profile: str | None = None) -> ModelConfig:
    return read_config(FOLDERS[name] / name, profile)


def steps_of(pipeline: str, profile: str | None = None) -> dict[str, ModelEnsembling.Step]:
    return {step.model_name: step for step in read(pipeline, profile).ensemble_scheduling.step}


@pytest.mark.parametrize("profile", [profile for profile in profile_names() if server_of(profile) == "embedded"])
@pytest.mark.parametrize("name", PIPELINES)
def test_the_embedded_server_runs_one_step_at_a_time(name: str, profile: str) -> None:
    """When a step fails while another step of the same request runs, Triton 2.51 can crash or stop answering."""
    last = {tensor.name for tensor in PIPELINES[name].inputs}
    for step in steps_of(name, profile).values():
        assert set(step.input_map.values()) & last, step.model_name
        last = set(step.output_map.values())


@pytest.mark.parametrize("profile", [profile for profile in profile_names() if server_of(profile) == "ngc"])
def test_the_container_encodes_the_prompt_while_it_decodes_the_photo(profile: str) -> None:
    for pipeline in ("product_image", "ground"):
        steps = steps_of(pipeline, profile)
        assert list(steps["encode_prompt"].input_map.values()) == ["TOKENS"]
        assert "observe" in steps
    assert steps_of("product_image", profile)["encode_image"].input_map["STATUS"] == "CROPPED"


@pytest.mark.parametrize("profile", profile_names())
def test_each_server_has_one_way_to_limit_what_waits(profile: str) -> None:
    for first in FIRST:
        config = read(first, profile)
        is_bounded = config.dynamic_batching.default_queue_policy.max_queue_size > 0
        assert is_bounded == (server_of(profile) == "ngc")
        assert ("max_wait_seconds" in config.parameters) == (server_of(profile) == "embedded")
    for pipeline in PIPELINES:
        assert bool(read(pipeline, profile).ensemble_scheduling.max_inflight_requests) == (server_of(profile) == "ngc")


@pytest.mark.parametrize("profile", profile_names())
@pytest.mark.parametrize("name", PIPELINES)
def test_the_first_step_takes_all_inputs_of_one_request_at_a_time(name: str, profile: str) -> None:
    """Triton's Python backend checks BYTES when it takes a batch, and one wrong request fails all of its batch."""
    first = next(iter(steps_of(name, profile).values()))
    assert first.model_name in FIRST
    assert set(first.input_map.values()) == {tensor.name for tensor in PIPELINES[name].inputs}
    assert list(read(first.model_name, profile).dynamic_batching.preferred_batch_size) == [1]
    for step in list(steps_of(name, profile).values())[1:]:
        if set(step.input_map.values()) & {tensor.name for tensor in PIPELINES[name].inputs}:
            assert set(step.input_map.values()) & set(first.output_map.values()), f"{step.model_name} waits for it"
