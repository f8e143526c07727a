"""Small graphs with the tensors of the real models, so that the server can be tested without trained models.

A toy image embedding is the mean colour of the crop, and a toy text embedding counts tokens. This is enough to tell
rows apart, and to see that prompts and statuses arrive.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import parser
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from export.place import put_in_place, staging
from export.stamp import stamp
from serving.repository.manifest import ARTEFACTS, Leaf, Manifest, Request, Settings
from serving.repository.versions import GIVEN_BY, PARTS, version_of, words_of

GRAPHS = {
    # An empty text has no token but 0.
    "encode_prompt": """(int64[B,16] TOKENS) => (float[B,1,C] PROMPT, int32[B,L] PROMPT_MASK) {
        counts = Cast<to=1>(TOKENS)
        axis = Constant<value_ints=[1]>()
        PROMPT = Unsqueeze(counts, axis)
        longest = ReduceMax<axes=[1], keepdims=1>(TOKENS)
        zero = Constant<value=int64 {0}>()
        any = Greater(longest, zero)
        PROMPT_MASK = Cast<to=6>(any)
    }""",
    # The box is the upper left quarter of the image, the score 0.9 where there is a prompt.
    "detect": """(uint8[B,S,S,3] CANVAS, int32[B,4] SIZE, float[B,L,C] PROMPT, int32[B,L] PROMPT_MASK)
        => (float[B,4] CANVAS_BOX, float[B,1] SCORE) {
        columns = Constant<value_ints=[1,0]>()
        width_height = Gather<axis=1>(SIZE, columns)
        float_wh = Cast<to=1>(width_height)
        half = Constant<value_float=0.5>()
        corner = Mul(float_wh, half)
        zero = Constant<value_float=0.0>()
        origin = Mul(float_wh, zero)
        CANVAS_BOX = Concat<axis=1>(origin, corner)
        mask = Cast<to=1>(PROMPT_MASK)
        words = ReduceMax<axes=[1], keepdims=1>(mask)
        sure = Constant<value_float=0.9>()
        SCORE = Mul(words, sure)
    }""",
    # "Pixels" are the mean colour of the canvas, spread over R by R.
    "crop": """(uint8[B,S,S,3] CANVAS, int32[B,4] SIZE, int32[B,1] DECODED, float[B,4] CANVAS_BOX, float[B,1] SCORE)
        => (float[B,3,R,R] PIXELS, float[B,4] BOX, int32[B,1] STATUS) {
        canvas = Cast<to=1>(CANVAS)
        colour = ReduceMean<axes=[1,2], keepdims=1>(canvas)
        channels_first = Transpose<perm=[0,3,1,2]>(colour)
        repeats = Constant<value_ints=[1,1,32,32]>()
        PIXELS = Tile(channels_first, repeats)
        BOX = Identity(CANVAS_BOX)
        threshold = Constant<value_float=0.1>()
        missed = Less(SCORE, threshold)
        whole = Cast<to=6>(missed)
        STATUS = Max(whole, DECODED)
    }""",
    "fit": """(uint8[B,S,S,3] CANVAS, int32[B,4] SIZE, int32[B,1] DECODED)
        => (float[B,3,R,R] PIXELS, int32[B,1] STATUS) {
        canvas = Cast<to=1>(CANVAS)
        colour = ReduceMean<axes=[1,2], keepdims=1>(canvas)
        channels_first = Transpose<perm=[0,3,1,2]>(colour)
        repeats = Constant<value_ints=[1,1,32,32]>()
        PIXELS = Tile(channels_first, repeats)
        one = Constant<value=int32 {1}>()
        STATUS = Max(one, DECODED)
    }""",
    "encode_image": """(float[B,3,R,R] PIXELS, int32[B,1] STATUS) => (float[B,D] EMBEDDING) {
        colour = ReduceMean<axes=[2,3], keepdims=0>(PIXELS)
        tiny = Constant<value_float=0.000001>()
        not_zero = Add(colour, tiny)
        unit = LpNormalization<axis=1, p=2>(not_zero)
        two = Constant<value=int32 {2}>()
        fine = Less(STATUS, two)
        keep = Cast<to=1>(fine)
        EMBEDDING = Mul(unit, keep)
    }""",
    "encode_text": """(int64[B,T] TOKENS) => (float[B,D] EMBEDDING) {
        counts = Cast<to=1>(TOKENS)
        one = Constant<value_float=1.0>()
        not_zero = Add(counts, one)
        EMBEDDING = LpNormalization<axis=1, p=2>(not_zero)
    }""",
}


# The graphs that differ between versions. A score of 0.11 or 0.22, a box of 1 or 2, and an embedding along (1, 1, 0) or
# (1, 2, 0) come from version 1 or 2 alone. Any other result comes from a mix of both.
VERSIONED = {
    "encode_prompt": """(int64[B,16] TOKENS) => (float[B,1,C] PROMPT, int32[B,L] PROMPT_MASK) {
        version = Constant<value_float=VERSION>()
        zero = Constant<value_float=0.0>()
        counts = Cast<to=1>(TOKENS)
        nothing = Mul(counts, zero)
        row = Add(nothing, version)
        axis = Constant<value_ints=[1]>()
        PROMPT = Unsqueeze(row, axis)
        longest = ReduceMax<axes=[1], keepdims=1>(TOKENS)
        none = Constant<value=int64 {0}>()
        any = Greater(longest, none)
        PROMPT_MASK = Cast<to=6>(any)
    }""",
    "detect": """(uint8[B,S,S,3] CANVAS, int32[B,4] SIZE, float[B,L,C] PROMPT, int32[B,L] PROMPT_MASK)
        => (float[B,4] CANVAS_BOX, float[B,1] SCORE) {
        version = Constant<value_float=VERSION>()
        tenth = Constant<value_float=0.1>()
        hundredth = Constant<value_float=0.01>()
        CANVAS_BOX = Cast<to=1>(SIZE)
        prompt = ReduceMin<axes=[2], keepdims=0>(PROMPT)
        fine = Mul(prompt, hundredth)
        coarse = Mul(version, tenth)
        SCORE = Add(coarse, fine)
    }""",
    "crop": """(uint8[B,S,S,3] CANVAS, int32[B,4] SIZE, int32[B,1] DECODED, float[B,4] CANVAS_BOX, float[B,1] SCORE)
        => (float[B,3,R,R] PIXELS, float[B,4] BOX, int32[B,1] STATUS) {
        version = Constant<value_float=VERSION>()
        zero = Constant<value_float=0.0>()
        canvas = Cast<to=1>(CANVAS)
        colour = ReduceMean<axes=[1,2], keepdims=1>(canvas)
        channels_first = Transpose<perm=[0,3,1,2]>(colour)
        nothing = Mul(channels_first, zero)
        pixel = Add(nothing, version)
        repeats = Constant<value_ints=[1,1,32,32]>()
        PIXELS = Tile(pixel, repeats)
        origin = Mul(CANVAS_BOX, zero)
        BOX = Add(origin, version)
        STATUS = Identity(DECODED)
    }""",
    "encode_image": """(float[B,3,R,R] PIXELS, int32[B,1] STATUS) => (float[B,D] EMBEDDING) {
        direction = Constant<value_floats=[1.0, VERSION, 0.0]>()
        colour = ReduceMean<axes=[2,3], keepdims=0>(PIXELS)
        version = Constant<value_float=VERSION>()
        deviation = Sub(colour, version)
        turned = Add(direction, deviation)
        unit = LpNormalization<axis=1, p=2>(turned)
        two = Constant<value=int32 {2}>()
        fine = Less(STATUS, two)
        keep = Cast<to=1>(fine)
        EMBEDDING = Mul(unit, keep)
    }""",
}


def place_version(repository: Path, version: int, broken: str | None = None, pretend: int | None = None) -> None:
    """Put a version of toy models into ``repository`` as an export does.

    The graph of ``broken`` is invalid. The models answer like those of version ``pretend``, if it is given.
    """
    leaves: dict[str, Leaf] = {}
    with staging(repository) as staged:
        for leaf, artefact in ARTEFACTS.items():
            (staged / leaf).mkdir()
            file = staged / leaf / artefact
            if leaf in GRAPHS:
                text = VERSIONED.get(leaf, GRAPHS[leaf]).replace("VERSION", f"{pretend or version}.0")
                graph = stamped(leaf, text, pretend or version)
                file.write_bytes(b"broken" if leaf == broken else graph.SerializeToString())
            else:
                toy_tokenizer().save(str(file))
            content = file.read_bytes()
            leaves[leaf] = Leaf(hashlib.sha256(content).hexdigest(), len(content), {}, artefact)
        put_in_place(staged, repository, replace(make_manifest(version, leaves), digests=digests(pretend or version)))


def make_manifest(version: int, leaves: Mapping[str, Leaf]) -> Manifest:
    """A manifest of models that were made from nothing."""
    request = Request({"model": "toy"}, {"model": "toy"}, Settings(threshold=0.2), code="")
    return Manifest(version, request, leaves, detector_side=64, digests=digests(version))


def digests(version: int) -> dict[str, str]:
    """The digests of a version of toys: "000000e2" is the encoder of version 2."""
    return {part: f"{0xE0 + 0x100 * place + version:08x}" for place, part in enumerate(PARTS)}


def stamped(leaf: str, signature_and_body: str, version: int) -> onnx.ModelProto:
    """A graph that names its version."""
    outputs = {
        name: words_of(version_of(pipeline, digests(version))) for name, pipeline in GIVEN_BY.get(leaf, {}).items()
    }
    return stamp(to_onnx(leaf, signature_and_body), outputs)


def build(source: Path, repository: Path) -> Path:
    """Copy the model repository ``source`` to ``repository``, with toys instead of the exported files."""
    artefacts = shutil.ignore_patterns(
        "model.onnx", "model.plan", "tokenizer.json", "__pycache__", "manifest*.json", "[2-9]", ".export-*"
    )
    shutil.copytree(source, repository, ignore=artefacts)
    for name, signature_and_body in GRAPHS.items():
        onnx.save(stamped(name, signature_and_body, 1), repository / name / "1" / "model.onnx")
    for name in ("tokenize", "tokenize_prompt"):
        toy_tokenizer().save(str(repository / name / "1" / "tokenizer.json"))
    return repository


def to_onnx(name: str, signature_and_body: str) -> onnx.ModelProto:
    graph = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {name} {signature_and_body}')
    onnx.checker.check_model(graph, full_check=True)
    return graph


def toy_tokenizer() -> Tokenizer:
    """One token per word, at most 16: 1 for "mug", 2 for any other word, 0 for padding."""
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "mug": 1, "[UNK]": 2}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16)
    return tokenizer


GATED = """
import os
import time
import triton_python_backend_utils as pb_utils

FILES = "{files}".encode()  # Triton's Python takes names for ASCII

class TritonPythonModel(Leaf):
    def initialize(self, args):
        super().initialize(args)
        self.admission = None  # which would take a leaf that holds requests for a slow one

    def execute(self, requests):
        while os.path.exists(FILES + b".hold"):
            open(FILES + b".holding", "w").close()
            time.sleep(0.02)
        if os.path.exists(FILES + b".refuse"):
            refusal = "overloaded: try again later", pb_utils.TritonError.UNAVAILABLE
            # One error for each: Triton crashes if two responses share one.
            return [pb_utils.InferenceResponse(error=pb_utils.TritonError(*refusal)) for _ in requests]
        return super().execute(requests)
"""


class Gate:
    """Controls a leaf that runs Python code: its process can be made to hold or refuse requests."""

    def __init__(self, models: Path, leaf: str):
        """Change the leaf's code in the copy ``models``, before a server loads it."""
        self._files = models.parent / f"gate-{leaf}"
        code = models / leaf / "1" / "model.py"
        line = code.read_text()
        assert line.endswith(" as TritonPythonModel\n")
        code.write_text(line.replace(" as TritonPythonModel", " as Leaf") + GATED.format(files=self._files))

    @contextmanager
    def closed(self, what: str = "hold") -> Iterator[None]:
        """Until :meth:`open` or the end: "hold" or "refuse" requests."""
        self._file("holding").unlink(missing_ok=True)
        self._file(what).touch()
        try:
            yield
        finally:
            self.open(what)

    def open(self, what: str = "hold") -> None:
        self._file(what).unlink(missing_ok=True)

    def is_reached(self) -> bool:
        """Whether a request is held."""
        return self._file("holding").exists()

    def _file(self, suffix: str) -> Path:
        return self._files.with_suffix(f".{suffix}")
