"""A graph keeps the contract, or is refused with a sentence."""

from __future__ import annotations

import onnx
import pytest
from onnx import parser

from export.errors import GraphError
from export.graph import check_contract, drop_outputs
from serving.repository.specs import CANVAS, EMBEDDING, TOKENS, ModelSpec, TensorSpec

SPEC = ModelSpec((TOKENS,), (EMBEDDING,))


def model(signature: str, body: str = "EMBEDDING = Cast<to=1>(TOKENS)") -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]> g {signature} {{ {body} }}')


REFUSED = {
    "another name": ("(int64[batch,77] TOKEN) => (float[batch,512] EMBEDDING)", "inputs"),
    "another dtype": ("(int32[batch,77] TOKENS) => (float[batch,512] EMBEDDING)", "INT64"),
    "a fixed batch": ("(int64[1,77] TOKENS) => (float[batch,512] EMBEDDING)", "batch"),
    "another rank": ("(int64[batch,77,1] TOKENS) => (float[batch,512] EMBEDDING)", "TOKENS"),
    "a free width": ("(int64[batch,77] TOKENS) => (float[batch,width] EMBEDDING)", "EMBEDDING"),
    "a missing output": ("(int64[batch,77] TOKENS) => ()", "outputs"),
}


@pytest.mark.parametrize(("signature", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(signature: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        check_contract(model(signature, "EMBEDDING = Cast<to=1>(TOKENS)"), SPEC)


def test_the_canvas_stays_free_and_one_symbol_is_one_number() -> None:
    spec = ModelSpec((CANVAS,), (TensorSpec("A", "UINT8", ("D",)), TensorSpec("B", "UINT8", ("D",))))
    good = model("(uint8[batch,S,S,3] CANVAS) => (uint8[batch,4] A, uint8[batch,4] B)", "A = Identity(CANVAS)")
    assert check_contract(good, spec) == {"D": 4}
    for signature in (
        "(uint8[batch,S,S,3] CANVAS) => (uint8[batch,4] A, uint8[batch,5] B)",
        "(uint8[batch,640,640,3] CANVAS) => (uint8[batch,4] A, uint8[batch,4] B)",
    ):
        with pytest.raises(GraphError):
            check_contract(model(signature, "A = Identity(CANVAS)"), spec)


def test_dropped_outputs_take_the_nodes_along_that_served_them_alone() -> None:
    graph = model(
        "(int64[batch,4] TOKENS) => (float[batch,4] EMBEDDING, float[batch,4] PROBE)",
        "shared = Cast<to=1>(TOKENS) EMBEDDING = Neg(shared) alone = Abs(shared) PROBE = Neg(alone)",
    )
    drop_outputs(graph, ["PROBE"])
    onnx.checker.check_model(graph, full_check=True)
    assert [node.op_type for node in graph.graph.node] == ["Cast", "Neg"]
    assert check_contract(graph, SPEC) == {"T": 4, "D": 4}
