"""The gate: every artefact is compared with PyTorch, PIL and open_clip before it is placed.

Each check takes the actual and the expected arrays, returns figures for the manifest, and raises ``ParityError`` with
one sentence if they differ too much.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from export.errors import ParityError
from export.precision import is_half, rounded
from serving.repository.specs import ModelSpec, Status

Arrays = Mapping[str, np.ndarray]
Figures = dict[str, float]
Run = Callable[[Arrays], Arrays]
"""inputs → outputs of the graph"""
Judge = Callable[[Arrays, Arrays, Arrays], Figures]
"""(inputs, actual, expected) → figures"""
Check = Callable[[Arrays, Arrays, Arrays, "Tolerance"], Figures]
"""(inputs, actual, expected, tolerance) → figures"""

BATCHES = (1, 3, 7)

GREY_MAX = 1.01
"""The largest difference of ``PIXELS`` in grey levels: one level, where a value lies between two."""
GREY_SHARE = 0.01
"""The largest share of values that differ."""
PIL_GREY_MEAN = 0.5
RELATIVE = 1e-4


@dataclass(frozen=True)
class Tolerance:
    """The limits for differences between a graph and PyTorch in FP32."""

    cosine_min: float
    cosine_mean: float
    score: float
    box_pixels: float
    """In canvas pixels. A pixel of the detector's input may be several of the canvas."""


FP32 = Tolerance(cosine_min=0.99999, cosine_mean=0.99999, score=1e-3, box_pixels=0.5)
FP16 = Tolerance(cosine_min=0.995, cosine_mean=0.9995, score=1e-2, box_pixels=4.0)


def ignore(step: str) -> None:
    """Do nothing with a progress line."""


def require(leaf: str, what: str, value: float, limit: float, at_least: bool = False) -> float:
    """Return the value. Raises ParityError if it exceeds its limit or is NaN."""
    if not (value >= limit if at_least else value <= limit):
        word = "at least" if at_least else "at most"
        raise ParityError(f"{leaf}: {what} is {value:.6g}, expected {word} {limit:g}")
    return float(value)


def run_graph(model: onnx.ModelProto, spec: ModelSpec) -> Run:
    """A function that runs the graph.

    FP32 graphs run on the CPU. FP16 graphs run on the GPU, or on the CPU with every tensor rounded: see
    ``export.precision.rounded``. The session reads a file, because it would keep the bytes of a model in memory.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    providers: list[str | tuple[str, dict[str, str]]] = ["CPUExecutionProvider"]
    if is_half(model):
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": "0"}))  # as it is served
        else:
            model = rounded(model)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(model.SerializeToString())
        session = onnxruntime.InferenceSession(str(file), options, providers=providers)
    names = [tensor.name for tensor in spec.outputs]

    def run(inputs: Arrays) -> Arrays:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return run


def compare(
    run: Run,
    inputs: Arrays,
    expected: Arrays,
    judge: Judge,
    batches: Sequence[int] = BATCHES,
    step: Callable[[str], None] = ignore,
) -> Figures:
    """Check all rows of ``inputs`` in batches of several sizes. A row's result must not depend on its batch.

    Args:
        expected: PyTorch's results for all rows.
        batches: numbers of rows that run at once. With each of them, all rows run.
        step: gets the name of each batch before it runs.

    Returns:
        the worst figures of all batch sizes
    """
    rows = len(next(iter(inputs.values())))
    figures: Figures = {}
    for batch in batches:
        parts = []
        for begin in range(0, rows, batch):
            chosen = range(begin, min(begin + batch, rows))
            step(f"row {chosen[-1] + 1} of {rows}, {batch} at once")
            parts.append(run({name: value[list(chosen)] for name, value in inputs.items()}))
        actual = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        figures = worst(figures, judge(inputs, actual, expected))
    return figures


def worst(*figures: Figures) -> Figures:
    """The worst of each figure: the smallest cosine, the largest difference."""
    names = dict.fromkeys(name for some in figures for name in some)
    choose = {name: min if name.startswith("cosine") else max for name in names}
    return {name: choose[name](some[name] for some in figures if name in some) for name in names}


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cosine of each pair of rows. (N, D), (N, D) → (N,)"""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a64, axis=-1) * np.linalg.norm(b64, axis=-1)
    return np.asarray((a64 * b64).sum(-1) / np.maximum(lengths, 1e-12))


def check_equal(leaf: str, name: str, actual: np.ndarray, expected: np.ndarray) -> None:
    if not np.array_equal(actual, expected):
        raise ParityError(
            f"{leaf}: {name} is {actual.ravel()[:32].tolist()}, expected {expected.ravel()[:32].tolist()}"
        )


def check_vectors(leaf: str, name: str, actual: np.ndarray, expected: np.ndarray, tolerance: Tolerance) -> Figures:
    """Compare unit vectors (B, …, D) by cosine."""
    flat, truth = actual.reshape(-1, actual.shape[-1]), expected.reshape(-1, expected.shape[-1])
    lengths = np.linalg.norm(flat, axis=-1)
    near = cosines(flat, truth)
    return {
        "cosine_min": require(leaf, f"the cosine of {name}", near.min(), tolerance.cosine_min, at_least=True),
        "cosine_mean": require(leaf, f"the mean cosine of {name}", near.mean(), tolerance.cosine_mean, at_least=True),
        "difference_max": float(np.abs(flat - truth).max()),
        "length_error_max": require(leaf, f"the distance of {name} from unit length", abs(lengths - 1).max(), 1e-4),
    }


def check_encode_image(inputs: Arrays, actual: Arrays, expected: Arrays, tolerance: Tolerance = FP32) -> Figures:
    shown = inputs["STATUS"][:, 0] < Status.NOT_AN_IMAGE
    blank = actual["EMBEDDING"][~shown]
    if blank.any():
        raise ParityError("encode_image: a row without an image is not zero")
    if not shown.any():
        return {}
    return check_vectors(
        "encode_image", "EMBEDDING", actual["EMBEDDING"][shown], expected["EMBEDDING"][shown], tolerance
    )


def check_encode_text(inputs: Arrays, actual: Arrays, expected: Arrays, tolerance: Tolerance = FP32) -> Figures:
    return check_vectors("encode_text", "EMBEDDING", actual["EMBEDDING"], expected["EMBEDDING"], tolerance)


def check_encode_prompt(inputs: Arrays, actual: Arrays, expected: Arrays, tolerance: Tolerance = FP32) -> Figures:
    check_equal("encode_prompt", "PROMPT_MASK", actual["PROMPT_MASK"], expected["PROMPT_MASK"])
    return check_vectors("encode_prompt", "PROMPT", actual["PROMPT"], expected["PROMPT"], tolerance)


def check_encode_phrase(inputs: Arrays, actual: Arrays, expected: Arrays, tolerance: Tolerance = FP32) -> Figures:
    """Compare ``PROMPT`` relative to its largest value. It must be zero where ``PROMPT_MASK`` is."""
    check_equal("encode_prompt", "PROMPT_MASK", actual["PROMPT_MASK"], expected["PROMPT_MASK"])
    if actual["PROMPT"][actual["PROMPT_MASK"] == 0].any():
        raise ParityError("encode_prompt: PROMPT is not zero where PROMPT_MASK is")
    scale = max(float(np.abs(expected["PROMPT"]).max()), 1e-12)
    apart = np.abs(actual["PROMPT"] - expected["PROMPT"]).max() / scale
    return {"relative_max": require("encode_prompt", "the relative difference of PROMPT", apart, RELATIVE)}


def check_proposals(actual: Arrays, expected: Arrays, tolerance: Tolerance = FP32) -> Figures:
    """Compare Grounding DINO's intermediate results: before the proposals are chosen, and after the graph's own choice.

    The arrays are those of ``export.grounding_dino.PROBES``. Logits are compared relative to the largest one, and must
    be infinite in the same places. Boxes are fractions of the image.
    """
    figures: Figures = {}
    for name in ("FOREGROUND", "LOGITS"):
        finite = np.isfinite(expected[name])
        check_equal("detect", f"where {name} is finite", np.isfinite(actual[name]), finite)
        scale = max(1.0, float(np.abs(expected[name][finite]).max()))
        apart = np.abs(actual[name][finite] - expected[name][finite]).max() / scale
        figures[f"{name.lower()}_relative_max"] = require(
            "detect", f"the relative difference of {name}", apart, tolerance.score
        )
    apart = np.abs(actual["BOXES"] - expected["BOXES"]).max()
    return figures | {"boxes_difference_max": require("detect", "the difference of BOXES", apart, tolerance.score)}


def pixel_check(leaf: str, std: Sequence[float]) -> Check:
    """The check of ``fit`` and ``crop``: equal grey levels, except for a few that rounding puts one level apart."""
    to_grey = 255.0 * np.asarray(std, np.float32).reshape(1, 3, 1, 1)

    def check(inputs: Arrays, actual: Arrays, expected: Arrays, tolerance: Tolerance = FP32) -> Figures:
        check_equal(leaf, "STATUS", actual["STATUS"], expected["STATUS"])
        grey = np.abs(actual["PIXELS"] - expected["PIXELS"]) * to_grey
        figures = {
            "grey_max": require(leaf, "the difference in grey levels", grey.max(), GREY_MAX),
            "grey_share": require(leaf, "the share of differing values", (grey > 0.01).mean(), GREY_SHARE),
        }
        if "BOX" in actual:
            apart = np.abs(actual["BOX"] - expected["BOX"]).max()
            figures["box_pixels"] = require(leaf, "the difference of BOX in pixels", apart, 1e-3)
        return figures

    return check


def check_detect(inputs: Arrays, actual: Arrays, expected: Arrays, tolerance: Tolerance = FP32) -> Figures:
    """Compare the score, and the box with those that PyTorch gives nearly the best score.

    ``expected`` holds all boxes of PyTorch: ``BOXES`` (B, A, 4) on the canvas and ``SCORES`` (B, A). Two boxes with
    nearly the same score may change places between runtimes.
    """
    asked = inputs["PROMPT_MASK"].max(axis=1) > 0  # (B,)
    best = np.where(asked, expected["SCORES"].max(axis=1), 0.0)  # (B,)
    figures = {
        "score_difference_max": require(
            "detect", "the difference of SCORE", np.abs(actual["SCORE"][:, 0] - best).max(), tolerance.score
        )
    }
    apart = np.abs(actual["CANVAS_BOX"][:, None] - expected["BOXES"]).max(axis=2)  # (B, A)
    apart = np.where(expected["SCORES"] >= best[:, None] - tolerance.score, apart, np.inf).min(axis=1)  # (B,)
    if asked.any():
        figures["box_pixels"] = require(
            "detect",
            "the distance of CANVAS_BOX from PyTorch's best box in pixels",
            apart[asked].max(),
            tolerance.box_pixels,
        )
    heights, widths = inputs["SIZE"][:, 0:1], inputs["SIZE"][:, 1:2]
    whole = np.concatenate([np.zeros_like(widths), np.zeros_like(widths), widths, heights], axis=1)
    check_equal("detect", "CANVAS_BOX of an empty prompt", actual["CANVAS_BOX"][~asked], whole[~asked].astype("f4"))
    return figures


def check_against_pil(leaf: str, pixels: np.ndarray, expected: np.ndarray, std: Sequence[float]) -> Figures:
    """Compare the graph's pixels with open_clip's own transform of PIL's crops. (N, 3, R, R) each"""
    grey = np.abs(pixels - expected) * 255.0 * np.asarray(std, np.float32).reshape(1, 3, 1, 1)
    mean = grey.mean(axis=(1, 2, 3)).max()
    return {
        "pil_grey_mean": require(leaf, "the mean difference from PIL in grey levels", mean, PIL_GREY_MEAN),
        "pil_grey_max": float(grey.max()),
    }


def check_tokenizer(leaf: str, tokenizer: Any, original: Any, texts: Sequence[str]) -> Figures:
    """Compare ids with those of the original tokenizer, which must be equal."""
    expected = original(list(texts)).tolist()
    actual = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    for text, mine, theirs in zip(texts, actual, expected, strict=True):
        if mine != theirs:
            raise ParityError(f"{leaf}: {text[:60]!r} gives {mine[:12]} …, expected {theirs[:12]} …")
    return {"texts_equal": float(len(texts))}
