"""Graphs on a ladder of batch sizes, on the CPU: all of it but CUDA graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

from serving.backends.onnxruntime import ladder
from serving.server.server import Server
from serving.server.stubs import find_stubs
from tests import toys
from tests.asking import ask_grpc
from tests.pictures import encode, picture

CPU = torch.device("cpu")

MIXED = """(uint8[B,S,S,3] CANVAS, float[B,4] WEIGHT) => (float[B,4] SUM, int64[B] BRIGHTEST) {
    pixels = Cast<to=1>(CANVAS)
    colour = ReduceMean<axes=[1,2,3], keepdims=0>(pixels)
    axis = Constant<value_ints=[1]>()
    column = Unsqueeze(colour, axis)
    square = Constant<value=float[4,4] {1,2,3,4, 5,6,7,8, 9,1,2,3, 4,5,6,7}>()
    product = MatMul(WEIGHT, square)
    SUM = Add(product, column)
    BRIGHTEST = ArgMax<axis=1, keepdims=0>(SUM)
}"""


class Uncapturable:
    """A session whose second run fails, as on CUDA where a kernel cannot be captured."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session, self._runs = session, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_iobinding(self, binding: ort.IOBinding) -> None:
        self._runs += 1
        if self._runs == 2:
            raise RuntimeError("operation not permitted when stream is capturing")
        self._session.run_with_iobinding(binding)


class Graph:
    """A toy graph, plain and on a ladder, with a list of the sessions that the ladder opened."""

    def __init__(self, plan: str, sizes: str = "", captures: bool = False):
        self.bytes = toys.to_onnx("mixed", MIXED).SerializeToString()
        self.plain = self.open({})
        self.opened: list[dict[str, int]] = []
        signature = {tensor.name: tensor.shape for tensor in self.plain.get_inputs()}
        self.warnings: list[str] = []
        self.ladder = ladder.Ladder(
            ladder.Plan.parse(plan, sizes),
            signature,
            self.open_counted,
            CPU,
            captures=captures,
            warn=self.warnings.append,
        )

    def open(self, sizes: Mapping[str, int]) -> ort.InferenceSession:
        options = ort.SessionOptions()
        for name, size in sizes.items():
            options.add_free_dimension_override_by_name(name, size)
        return ort.InferenceSession(self.bytes, options, providers=["CPUExecutionProvider"])

    def open_counted(self, sizes: Mapping[str, int], *, capture: bool) -> ort.InferenceSession:
        if not capture:
            self.opened.append(dict(sizes))
            return self.open(sizes)
        if sizes["B"] == 1:
            raise RuntimeError("not all nodes are on CUDA")
        return Uncapturable(self.open(sizes))

    def inputs(self, rows: int, side: int = 5, seed: int = 0) -> dict[str, np.ndarray]:
        noise = np.random.default_rng(seed)
        canvas = noise.integers(0, 256, (rows, side, side, 3), np.uint8)
        return {"CANVAS": canvas, "WEIGHT": noise.normal(size=(rows, 4)).astype(np.float32)}

    def climb(self, requests: Sequence[Mapping[str, np.ndarray]]) -> list[np.ndarray]:
        tensors = [{name: torch.from_numpy(array) for name, array in arrays.items()} for arrays in requests]
        return [output.numpy() for output in self.ladder.run(["BRIGHTEST", "SUM"], tensors)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (1, [(0, 1, 1)]),
        (2, [(0, 1, 1), (1, 2, 1)]),
        (3, [(0, 3, 8)]),
        (8, [(0, 8, 8)]),
        (9, [(0, 8, 8), (8, 9, 1)]),
        (12, [(0, 8, 8), (8, 12, 8)]),
        (30, [(0, 30, 32)]),
        (33, [(0, 32, 32), (32, 33, 1)]),
        (70, [(0, 32, 32), (32, 64, 32), (64, 70, 8)]),
        (0, []),
    ],
)
def test_rows_run_on_the_rungs_that_take_the_least_time(rows: int, expected: list[tuple[int, int, int]]) -> None:
    assert list(ladder.runs_of(rows, (1, 8, 32))) == expected


@pytest.mark.parametrize(
    ("rungs", "sizes"), [("", ""), ("8 1", ""), ("1 1", ""), ("0 8", ""), ("1", "448"), ("1", "S=")]
)
def test_plan_that_is_not_valid_is_refused(rungs: str, sizes: str) -> None:
    with pytest.raises(ValueError, match=r"(batch_ladder|ladder_sizes) must be .*not '"):
        ladder.Plan.parse(rungs, sizes)


@pytest.mark.parametrize("requests", [[1], [3], [8], [5, 1, 7], [1] * 9, [20, 3], [8, 8]])
def test_rows_are_those_of_the_plain_graph(requests: list[int]) -> None:
    """However they are padded, split and grouped into requests."""
    graph = Graph("1 4 8")
    inputs = [graph.inputs(rows, seed=i) for i, rows in enumerate(requests)]
    merged = {name: np.concatenate([arrays[name] for arrays in inputs]) for name in inputs[0]}
    for found, expected in zip(graph.climb(inputs), graph.plain.run(["BRIGHTEST", "SUM"], merged), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_rows_of_other_batches_have_no_influence() -> None:
    graph = Graph("8")
    graph.climb([{"CANVAS": np.full((8, 5, 5, 3), 255, np.uint8), "WEIGHT": np.full((8, 4), np.nan, np.float32)}])
    inputs = graph.inputs(3)
    first = graph.climb([inputs])
    np.testing.assert_allclose(first[1], graph.plain.run(["SUM"], inputs)[0], rtol=1e-6)
    # The next batch runs in the same buffers, and does not change these outputs.
    kept = first[1].copy()
    graph.climb([graph.inputs(8, seed=7)])
    np.testing.assert_array_equal(first[1], kept)


def test_sizes_of_the_plan_are_opened_at_once_and_few_others_later() -> None:
    graph = Graph("1 4", "S=5, S=6")
    assert graph.opened == [{"B": 1, "S": 5}, {"B": 4, "S": 5}, {"B": 1, "S": 6}, {"B": 4, "S": 6}]
    for side in (7, 8):
        assert graph.ladder.climbs({name: array.shape for name, array in graph.inputs(2, side).items()})
        graph.climb([graph.inputs(2, side)])
        graph.climb([graph.inputs(3, side)])
    assert graph.opened[4:] == [{"B": 4, "S": 7}, {"B": 4, "S": 8}]
    assert not graph.ladder.climbs({name: array.shape for name, array in graph.inputs(2, 9).items()})
    assert graph.ladder.climbs({name: array.shape for name, array in graph.inputs(2, 8).items()})
    for canvas in ((2, 5, 6, 3), (2, 5, 5, 4), (2, 5, 5, 3, 1)):
        assert not graph.ladder.climbs({"CANVAS": canvas, "WEIGHT": (2, 4)})


def test_a_rung_that_cannot_be_captured_runs_without_a_cuda_graph() -> None:
    """Whether ONNX Runtime refuses the graph when it is opened (batch 1), or fails in the warm-up (batch 4)."""
    graph = Graph("1 4", "S=5", captures=True)
    assert [text.rpartition(": ")[2] for text in graph.warnings] == [
        "not all nodes are on CUDA",
        "operation not permitted when stream is capturing",
    ]
    assert graph.opened == [{"B": 1, "S": 5}, {"B": 4, "S": 5}]
    inputs = graph.inputs(5)
    for found, expected in zip(graph.climb([inputs]), graph.plain.run(["BRIGHTEST", "SUM"], inputs), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def profile_with(folder: Path, rungs: str, *models: str) -> Path:
    folder.mkdir()
    for model in models:
        text = f'parameters {{ key: "batch_ladder" value: {{ string_value: "{rungs}" }} }}'
        (folder / f"{model}.pbtxt").write_text(f"instance_group [ {{ kind: KIND_CPU }} ] {text}")
    return folder


def test_ladder_is_served(toy_repositories: list[Path], tmp_path: Path) -> None:
    """A batch and single photos, which run on different rungs, have the same rows."""
    photos = [encode(picture(height=60 + 9 * i, seed=i), "JPEG") for i in range(6)] + [b""]
    prompts = [b"mug"] * 6 + [b""]
    with Server.start(
        toy_repositories, profile=profile_with(tmp_path / "ladder", "1 4", "encode_prompt", "encode_image")
    ) as server:
        batch = ask_grpc(server.grpc_url, "product_image", IMAGE=photos, PRODUCT_TYPE=prompts)
        for i, (photo, prompt) in enumerate(zip(photos, prompts, strict=True)):
            single = ask_grpc(server.grpc_url, "product_image", IMAGE=[photo], PRODUCT_TYPE=[prompt])
            for name, rows in batch.items():
                np.testing.assert_allclose(single[name][0], rows[i], atol=1e-6, err_msg=name)
        # Only models with a ladder load PyTorch.
        maps = {stub.model: Path(f"/proc/{stub.pid}/maps").read_text() for stub in find_stubs(server.shm_prefix)}
        assert {model for model, text in maps.items() if "libtorch" in text} == {"encode_prompt", "encode_image"}
    assert batch["STATUS"].ravel().tolist() == [0] * 6 + [2]
    assert len(np.unique(batch["EMBEDDING"].round(4), axis=0)) == 7
