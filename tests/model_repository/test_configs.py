"""The hand-written configs keep the contract of `export/specs.py`, and the pipelines fit their leaves."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelEnsembling, ModelInstanceGroup

from deploy.serve import REPOSITORIES
from export.specs import LEAVES, PIPELINES, ModelSpec, TensorSpec

MODELS, ENSEMBLES = REPOSITORIES
CONTRACTS = {**LEAVES, **PIPELINES}
FOLDERS = {**dict.fromkeys(LEAVES, MODELS), **dict.fromkeys(PIPELINES, ENSEMBLES)}


def read(name: str, appended: str = "") -> ModelConfig:
    text = (FOLDERS[name] / name / "config.pbtxt").read_text()
    return text_format.Parse(text + "\n" + appended, ModelConfig())


def as_written(tensor: TensorSpec) -> tuple[str, str, list[int]]:
    """Name, dtype and dims as the config should have them: what depends on the model is -1."""
    dtype = "TYPE_STRING" if tensor.dtype == "BYTES" else f"TYPE_{tensor.dtype}"
    return tensor.name, dtype, [size if isinstance(size, int) else -1 for size in tensor.shape]


def test_every_folder_has_a_contract() -> None:
    for repository, contracts in ((MODELS, LEAVES), (ENSEMBLES, PIPELINES)):
        assert {path.parent.name for path in repository.glob("*/config.pbtxt")} == set(contracts)


@pytest.mark.parametrize(("name", "contract"), CONTRACTS.items(), ids=CONTRACTS)
def test_config_says_what_the_contract_says(name: str, contract: ModelSpec) -> None:
    config = read(name)
    for written, specs in ((config.input, contract.inputs), (config.output, contract.outputs)):
        found = [(one.name, DataType.Name(one.data_type), list(one.dims)) for one in written]
        assert found == [as_written(spec) for spec in specs]
    assert config.max_batch_size > 0


@pytest.mark.parametrize("name", CONTRACTS)
def test_config_leaves_out_what_the_files_decide(name: str) -> None:
    config = read(name)
    assert not config.name
    assert not config.backend
    for group in config.instance_group:
        assert (group.count, group.kind, list(group.gpus)) == (1, ModelInstanceGroup.KIND_AUTO, [])


@pytest.mark.parametrize(("name", "contract"), LEAVES.items(), ids=LEAVES)
def test_requests_are_batched_without_waiting_for_more(name: str, contract: ModelSpec) -> None:
    config = read(name)
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.max_queue_delay_microseconds == 0


@pytest.mark.parametrize(("name", "contract"), PIPELINES.items(), ids=PIPELINES)
def test_wiring_fits_the_leaves(name: str, contract: ModelSpec) -> None:
    """Every step takes all its leaf needs from tensors that exist, of the right kind, and gives only what is used."""
    config = read(name)
    known = {tensor.name: as_written(tensor)[1:] for tensor in contract.inputs}
    used = {tensor.name for tensor in contract.outputs}
    for step in config.ensemble_scheduling.step:
        leaf = LEAVES[step.model_name]
        assert read(step.model_name).max_batch_size >= config.max_batch_size
        assert set(step.input_map) == {tensor.name for tensor in leaf.inputs}
        assert set(step.output_map) <= {tensor.name for tensor in leaf.outputs}
        for tensor in leaf.inputs:
            assert known[step.input_map[tensor.name]] == as_written(tensor)[1:]
        for tensor in leaf.outputs:
            if tensor.name in step.output_map:
                known[step.output_map[tensor.name]] = as_written(tensor)[1:]
        used |= set(step.input_map.values())
    assert set(known) == used
    for tensor in contract.outputs:
        assert known[tensor.name] == as_written(tensor)[1:]


@pytest.mark.parametrize("name", PIPELINES)
def test_no_two_steps_are_at_work_at_once(name: str) -> None:
    """When a step fails while another of the same request is at work, Triton 2.51 may crash or never answer again."""
    last = {tensor.name for tensor in PIPELINES[name].inputs}
    for step in read(name).ensemble_scheduling.step:
        assert set(step.input_map.values()) & last, step.model_name
        last = set(step.output_map.values())


def test_grounding_alone_leaves_the_pixels_out() -> None:
    crop = step_of("ground", "crop")
    assert set(crop.output_map) == {"BOX", "STATUS"}


def step_of(pipeline: str, leaf: str) -> ModelEnsembling.Step:
    (step,) = (step for step in read(pipeline).ensemble_scheduling.step if step.model_name == leaf)
    return step


@pytest.mark.parametrize("name", PIPELINES)
def test_version_folder_is_in_git(name: str) -> None:
    assert (ENSEMBLES / name / "1" / ".gitkeep").exists()


def test_profiles_leave_the_contract_alone() -> None:
    for fragment in (path for repository in REPOSITORIES for path in repository.glob("*/configs/*.pbtxt")):
        name = fragment.parent.parent.name
        base, result = read(name), read(name, fragment.read_text())
        for field in ("input", "output", "max_batch_size"):
            assert getattr(result, field) == getattr(base, field), fragment
