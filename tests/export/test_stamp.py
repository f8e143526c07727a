"""A graph names its version in every row, whatever its inputs hold."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

from export.graph import check_contract
from export.stamp import stamp
from serving.repository.specs import EMBEDDING, TOKENS, VERSION, ModelSpec

VERSIONS = {"VERSION": (1, 0x7FFFFFFF, 0, 0), "OTHER": (5, 6)}


def graph_of(inputs: str) -> onnx.ModelProto:
    name = inputs.split("] ")[-1]
    header = '<ir_version: 9, opset_import: ["" : 18]>'
    return parser.parse_model(
        f"{header} g ({inputs}) => (float[batch,4] EMBEDDING) {{ EMBEDDING = Cast<to=1>({name}) }}"
    )


@pytest.mark.parametrize(
    ("inputs", "operators"),
    [
        pytest.param("int64[batch,4] TOKENS", ["Gather", "Cast", "Mul", "Add", "Add"], id="tokens"),
        pytest.param("int32[batch,1] STATUS, int32[batch,4] SIZE", ["Mul", "Add", "Add"], id="the narrowest input"),
        pytest.param("uint8[batch,2,2,3] CANVAS, int32[batch,4] SIZE", ["Gather", "Mul", "Add", "Add"], id="a canvas"),
    ],
)
def test_every_row_has_the_version(inputs: str, operators: list[str]) -> None:
    model = stamp(graph_of(inputs), VERSIONS)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node][1:] == operators
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for rows in (1, 3):
        values = {
            one.name: np.full([rows, *one.shape[1:]], np.iinfo(one.type[7:-1]).max, one.type[7:-1])
            for one in session.get_inputs()
        }
        _, version, other = session.run(None, values)
        assert version.dtype == np.int32
        assert version.tolist() == [[*VERSIONS["VERSION"]]] * rows
        assert other.tolist() == [[5, 6]] * rows


def test_the_stamped_graph_has_the_tensors_of_the_contract() -> None:
    model = stamp(graph_of("int64[batch,4] TOKENS"), {"VERSION": VERSIONS["VERSION"]})
    check_contract(model, ModelSpec((TOKENS,), (EMBEDDING, VERSION)))


def test_a_graph_without_rows_of_integers_is_refused() -> None:
    with pytest.raises(ValueError, match="takes no matrix of integers"):
        stamp(graph_of("float[batch,4] PIXELS"), VERSIONS)
    assert stamp(graph_of("float[batch,4] PIXELS"), {}) == graph_of("float[batch,4] PIXELS")
