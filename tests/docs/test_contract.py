"""docs/contract.md agrees with the specs, the configs and the server."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from enum import IntEnum
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.utils import InferenceServerException

from serving.enrich import product
from serving.enrich.tokens import CHARACTERS
from serving.paths import REPOSITORIES, ROOT
from serving.repository.specs import PIPELINES, ModelSpec, Status, TensorSpec
from serving.repository.versions import MADE_BY
from serving.server.server import Server

PAGE = (ROOT / "docs/contract.md").read_text()
TABLES = [
    [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.M)
]
PIPELINE_TABLE, TENSOR_TABLE, STATUS_TABLE, OUTCOME_TABLE, VERSION_TABLE, ERROR_TABLE, TRITON_TABLE = TABLES


def config(path: Path) -> ModelConfig:
    return text_format.Parse((path / "config.pbtxt").read_text(), ModelConfig())


def tensors_of(cell: str) -> tuple[TensorSpec, ...]:
    found = re.findall(r"`(\w+)` (\w+) \[(\w+)\]", cell)
    return tuple(TensorSpec(name, dtype, (int(n) if n.isdigit() else n,)) for name, dtype, n in found)


def test_pipelines_and_tensors() -> None:
    documented = {
        name.strip("`"): ModelSpec(tensors_of(inputs), tensors_of(outputs)) for name, inputs, outputs in PIPELINE_TABLE
    }
    assert documented == PIPELINES


def test_every_tensor_is_explained() -> None:
    tensors = {tensor.name for spec in PIPELINES.values() for tensor in (*spec.inputs, *spec.outputs)}
    assert {name.strip("`") for name, _ in TENSOR_TABLE} == tensors


@pytest.mark.parametrize(("table", "statuses"), [(STATUS_TABLE, Status), (OUTCOME_TABLE, product.Outcome)])
def test_statuses(table: list[list[str]], statuses: type[IntEnum]) -> None:
    documented = [(int(value), meaning) for value, meaning, *_ in table]
    assert [value for value, _ in documented] == list(statuses)
    for (_, meaning), status in zip(documented, statuses, strict=True):
        assert meaning.startswith(status.name.lower().replace("_", " "))


def test_versions() -> None:
    words = {"encoder": "encoder", "preprocessing of images": "preprocessing", "tokenizer": "tokenizer"}
    words |= {"detector": "detector", "prompt encoder": "prompts"}
    documented = {name: tuple(map(words.get, parts)) for names, *parts in VERSION_TABLE for name in names.split(", ")}
    assert {name.strip("`"): parts for name, parts in documented.items()} == MADE_BY


def test_limits() -> None:
    models, ensembles = REPOSITORIES
    limits = config(models / "decode").parameters
    tokenizers = [config(models / leaf).parameters for leaf in ("tokenize", "tokenize_prompt")]
    read = {parameters["max_characters"].string_value for parameters in tokenizers}
    expected = {
        f"at most {product.MAX_BYTES} bytes",
        f"more than {limits['max_bytes'].string_value} bytes",
        f"or {limits['max_pixels'].string_value} pixels",
        *(f"The first {characters} characters are read" for characters in {*read, str(CHARACTERS)}),
        f"Of each of the three texts {product.MAX_TEXT} characters are read",
        *(f"N is {config(ensembles / name).max_batch_size} at most" for name in PIPELINES),
    }
    text = " ".join(PAGE.split())
    assert not {limit for limit in expected if limit not in text}


def test_no_queue_has_timeouts_or_priorities() -> None:
    for path in (path.parent for folder in REPOSITORIES for path in folder.glob("*/config.pbtxt")):
        batching = config(path).dynamic_batching
        assert not batching.HasField("default_queue_policy"), path
        assert batching.priority_levels == 0, path


@pytest.mark.parametrize(
    ("row", "model", "tensor", "shape"),
    [
        pytest.param(0, "nowhere", "TEXT", [1, 1], id="an unknown pipeline"),
        pytest.param(0, "product_text/versions/2", "TEXT", [1, 1], id="an unknown version"),
        pytest.param(1, "product_text", "TXT", [1, 1], id="an unknown input"),
        pytest.param(1, "ground", "IMAGE", [1, 1], id="an input missing"),
        pytest.param(1, "product_text", "TEXT", [1], id="another shape"),
        pytest.param(1, "product_text", "TEXT", [65, 1], id="a batch too large"),
    ],
)
def test_errors(server: Server, row: int, model: str, tensor: str, shape: list[int]) -> None:
    _, grpc_code, http_code = ERROR_TABLE[row]
    name, _, version = model.partition("/versions/")
    given = tritonclient.grpc.InferInput(tensor, shape, "BYTES")
    given.set_data_from_numpy(np.full(shape, b"a", object))
    with (
        tritonclient.grpc.InferenceServerClient(server.grpc_url) as client,
        pytest.raises(InferenceServerException) as refused,
    ):
        client.infer(name, [given], model_version=version)
    assert refused.value.status() == f"StatusCode.{grpc_code.strip('`')}"

    body = {"inputs": [{"name": tensor, "shape": shape, "datatype": "BYTES", "data": ["a"] * shape[0]}]}
    with pytest.raises(urllib.error.HTTPError) as answered:
        urllib.request.urlopen(f"http://{server.http_url}/v2/models/{model}/infer", json.dumps(body).encode())
    answered.value.close()
    assert answered.value.code == int(http_code)


def test_the_lengths_of_the_request_on_the_wire() -> None:
    wire = re.search(r"^```\nPOST (.*?)\n```", PAGE, re.M | re.S)
    assert wire
    header, body, answer = wire[1].split("\n\n")
    lengths = dict(re.findall(r"([\w-]+): (\d+)", header))
    header_json, binary = body.split("\n<")
    sent = int(re.search(r"binary_data_size\": (\d+)", header_json)[1])  # type: ignore[index]
    assert int(lengths["Inference-Header-Content-Length"]) == len(header_json)
    assert int(lengths["Content-Length"]) == len(header_json) + sent
    assert int.from_bytes(bytes.fromhex(binary.partition(">")[0]), "little") == sent - 4
    assert [tensor["name"] for tensor in json.loads(header_json)["inputs"]] == [
        t.name for t in PIPELINES["ground"].inputs
    ]
    assert {tensor["name"] for tensor in json.loads(answer)["outputs"]} == {t.name for t in PIPELINES["ground"].outputs}
