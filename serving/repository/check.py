"""Check that configs, profiles, pipelines and graphs fit each other, without a server. Prints one line per problem.

    python -m serving check                                  all profiles of serving/profiles
    python -m serving check --profile ngc-tensorrt           one profile, or a folder of fragments
    python -m serving check --model-repository DIR           a repository that `python -m export --out DIR` wrote

Graphs are opened if they are ONNX files. Only the Triton that a TensorRT plan was built for can open that plan.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from serving.errors import SetupError
from serving.paths import REPOSITORIES
from serving.repository.folders import find_home
from serving.repository.manifest import read_served
from serving.repository.profiles import (
    EMBEDDED,
    Profile,
    find_unservable,
    fragments_of,
    profile_names,
    read_config,
    server_of,
)
from serving.repository.specs import LEAVES, PIPELINES, TensorSpec

CONTRACTS = {**LEAVES, **PIPELINES}
ONNX_DTYPES = {
    "TYPE_UINT8": "tensor(uint8)",
    "TYPE_INT32": "tensor(int32)",
    "TYPE_INT64": "tensor(int64)",
    "TYPE_FP32": "tensor(float)",
}
Kind = tuple[str, list[int]]
"""The dtype and the dims of a tensor in a config; -1 for a size that depends on the model."""


def find_problems(repositories: Sequence[Path] = REPOSITORIES, profile: Profile | None = None) -> list[str]:
    """The problems of the configs with the profile, in one line each, which names the model."""
    problems: list[str] = []
    configs: dict[str, ModelConfig] = {}
    sources = [config.parent for repository in repositories for config in sorted(repository.glob("*/config.pbtxt"))]
    for name, times in Counter(source.name for source in sources).items():
        if times > 1:
            problems.append(f"{name}: {times} folders have this name, and Triton would load none of them")
    for source in sources:
        try:
            configs[source.name] = read_config(source, profile)
        except SetupError as error:
            problems.append(f"{source.name}: {' '.join(str(error).split())}")
    names = {source.name for source in sources}
    for name, file in fragments_of(profile).items() if profile else ():
        if name not in names:
            problems.append(f"{name}: {file} is for no model")
    missing = sorted(CONTRACTS.keys() - names)
    problems += [f"{name}: serving/repository/specs.py has it, the repositories do not" for name in missing]
    for name, config in configs.items():
        problems += [f"{name}: {problem}" for problem in find_breaches(config, may_add_inputs=profile is not None)]
        # The problem of a broken config is not repeated for each pipeline that uses it.
        uses = {step.model_name for step in config.ensemble_scheduling.step}
        if config.platform == "ensemble" and not uses & names - configs.keys():
            problems += [f"{name}: {problem}" for problem in find_loose_ends(config, configs)]
        if profile and server_of(profile) == EMBEDDED and (why := find_unservable(config)):
            problems.append(f"{name}: {why}")
    return problems


def find_breaches(config: ModelConfig, may_add_inputs: bool = False) -> Iterator[str]:
    """The differences between a config and its contract in serving/repository/specs.py."""
    if config.name not in CONTRACTS:
        yield "serving/repository/specs.py knows no such model"
        return
    if config.max_batch_size < 1:
        yield "max_batch_size is not above 0, so it does not batch"
    if (preferred := max(config.dynamic_batching.preferred_batch_size, default=0)) > config.max_batch_size:
        yield f"prefers batches of {preferred}, and takes {config.max_batch_size} at most"
    contract = CONTRACTS[config.name]
    for what, written, specs in (("input", config.input, contract.inputs), ("output", config.output, contract.outputs)):
        found = [describe(one.name, kind_of(one)) for one in written]
        wanted = [describe(spec.name, as_written(spec)) for spec in specs]
        if found[: len(wanted) if what == "input" and may_add_inputs else None] != wanted:
            yield f"{what} is {', '.join(found) or 'nothing'}, in serving/repository/specs.py {', '.join(wanted)}"


def find_loose_ends(pipeline: ModelConfig, configs: dict[str, ModelConfig]) -> Iterator[str]:
    """The steps of a pipeline that do not fit their models or each other."""
    known = {tensor.name: kind_of(tensor) for tensor in pipeline.input}
    used = {tensor.name for tensor in pipeline.output}
    for step in pipeline.ensemble_scheduling.step:
        here, leaf = f"step {step.model_name}", configs.get(step.model_name)
        if leaf is None:
            yield f"{here}: there is no such model"
            return
        if leaf.max_batch_size < pipeline.max_batch_size:
            yield f"{here}: takes batches of {leaf.max_batch_size}, the pipeline of {pipeline.max_batch_size}"
        inputs, outputs = ({tensor.name: kind_of(tensor) for tensor in side} for side in (leaf.input, leaf.output))
        optional = {tensor.name for tensor in leaf.input if tensor.optional}
        for name in sorted(step.input_map.keys() - inputs.keys()):
            yield f"{here}: the model takes no {name}"
        for name in sorted(step.output_map.keys() - outputs.keys()):
            yield f"{here}: the model gives no {name}"
        for name, wanted in inputs.items():
            if name not in step.input_map:
                if name not in optional:
                    yield f"{here}: nothing is given for its input {name}"
            elif step.input_map[name] not in known:
                yield f"{here}: no step before it gives {step.input_map[name]}"
            elif not fits(known[step.input_map[name]], wanted):
                given = describe(step.input_map[name], known[step.input_map[name]])
                yield f"{here}: takes {describe(name, wanted)}, is given {given}"
        for name, given_kind in outputs.items():
            if name in step.output_map and step.output_map[name] in known:
                yield f"{here}: {step.output_map[name]} is given twice"
            elif name in step.output_map:
                known[step.output_map[name]] = given_kind
        used |= set(step.input_map.values())
    for tensor in pipeline.output:
        if tensor.name not in known:
            yield f"no step gives the output {tensor.name}"
        elif not fits(known[tensor.name], kind_of(tensor)):
            given = describe(tensor.name, known[tensor.name])
            yield f"its output is {describe(tensor.name, kind_of(tensor))}, the steps give {given}"
    for name in sorted(known.keys() - used):
        yield f"nothing uses {name}, and Triton refuses such a pipeline"


def find_unlike_graphs(repositories: Sequence[Path] = REPOSITORIES) -> list[str]:
    """The served files that are missing or have other tensors than their config, in one line each, with the leaf."""
    home = find_home(repositories)
    manifest = read_served(home) if home else None
    if not home or not manifest:
        return [f"{repositories[0]} holds no export: run `make models`, which exports the models"]
    problems = []
    for leaf in manifest.leaves:
        file = manifest.file_in(home, leaf)
        if not file.exists():
            problems.append(f"{leaf}: {file} is missing")
        elif file.suffix == ".onnx":
            try:
                config = read_config(home / leaf)
            except SetupError:
                continue  # find_problems reports it
            problems += [f"{leaf}: {problem}" for problem in find_unlike_tensors(file, config)]
    return problems


def find_unlike_tensors(graph: Path, config: ModelConfig) -> Iterator[str]:
    """The inputs and outputs of an ONNX graph that differ from the config."""
    try:
        import onnxruntime as ort
    except ImportError:  # as in the image for NVIDIA's container
        yield "its graph was not checked, because ONNX Runtime is not installed: pip install './serving[cpu]'"
        return
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has many classes of errors, without a common base
        yield f"{graph} is no graph to ONNX Runtime: {' '.join(str(error).split())}"
        return
    for what, found, written in (
        ("takes", session.get_inputs(), config.input),
        ("gives", session.get_outputs(), config.output),
    ):
        tensors = {one.name: one for one in found}
        for tensor in written:
            dtype, dims = kind_of(tensor)
            one = tensors.pop(tensor.name, None)
            if one is None:
                yield f"{graph} {what} no {tensor.name}"
                continue
            # A free size is a name or None; the first is the batch.
            sizes = [size if isinstance(size, int) else -1 for size in one.shape]
            if one.type != ONNX_DTYPES.get(dtype) or not agree(sizes, [-1, *dims]):
                wanted = describe(tensor.name, (dtype, dims))
                yield f"{graph} {what} {one.name} {one.type} {one.shape}, the config {wanted}"
            elif sizes[0] != -1:
                yield f"{graph} {what} {one.name} only in batches of {sizes[0]}"
        for name in tensors:
            yield f"{graph} {what} {name}, which the config does not have"


def kind_of(tensor: Any) -> Kind:
    """The kind of a ModelInput or a ModelOutput."""
    return DataType.Name(tensor.data_type), list(tensor.dims)


def as_written(tensor: TensorSpec) -> Kind:
    """The dtype and the dims that a config should have; -1 for a size that depends on the model."""
    dtype = "TYPE_STRING" if tensor.dtype == "BYTES" else f"TYPE_{tensor.dtype}"
    return dtype, [size if isinstance(size, int) else -1 for size in tensor.shape]


def fits(given: Kind, wanted: Kind) -> bool:
    return given[0] == wanted[0] and agree(given[1], wanted[1])


def agree(given: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether both can be the same shape: -1 fits any size."""
    return len(given) == len(wanted) and all(
        -1 in pair or pair[0] == pair[1] for pair in zip(given, wanted, strict=True)
    )


def describe(name: str, kind: Kind) -> str:
    """ "SIZE INT32 [4]" """
    return f"{name} {kind[0].removeprefix('TYPE_')} {kind[1]}"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m serving check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    models, ensembles = REPOSITORIES
    add = parser.add_argument
    add("--profile", metavar="NAME", help=f"{', '.join(profile_names())}, or a folder of fragments (all of ours)")
    add("--model-repository", type=Path, default=models, metavar="DIR", help="the models (model_repository/)")
    add("--ensembles", type=Path, default=ensembles, metavar="DIR", help="the pipelines (ensembles/)")
    arguments = parser.parse_args()
    repositories = [arguments.model_repository, arguments.ensembles]
    for folder in repositories:
        if not any(folder.glob("*/config.pbtxt")):
            parser.error(f"{folder} holds no models: expected a folder with */config.pbtxt")
    profiles = [arguments.profile] if arguments.profile else profile_names()
    problems = find_problems(repositories)
    try:
        for profile in profiles:
            problems += [f"{profile}: {one}" for one in find_problems(repositories, profile) if one not in problems]
    except SetupError as error:
        problems.append(str(error))
    problems += find_unlike_graphs(repositories)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(f"Configs, pipelines and graphs fit, in {', '.join(profiles)}.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
