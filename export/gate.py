"""The gate: no artefact leaves that was not compared with PyTorch, PIL and open_clip.

Every function takes what the graph gave and what it should have given, returns the figures for the manifest, and
raises ``ParityError`` with one sentence.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.errors import ParityError
from serving.repository.specs import ModelSpec, Status

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Arrays = Mapping[str, np.ndarray]
    Check = Callable[["Arrays", "Arrays", "Arrays", "Tolerance"], "Figures"]
    """(inputs, what the graph gave, what PyTorch gave, how near it must be) → figures"""
    Run = Callable[["Arrays"], "Arrays"]
    """inputs → outputs of the graph"""

Figures = dict[str, float]

BATCHES = (1, 3, 7)

GREY_MAX = 1.01
GREY_DIFFERENT = 0.01  # share of values that may fall on the other side of a rounding
PIL_GREY_MEAN = 0.5
RELATIVE = 1e-4


@dataclass(frozen=True)
class Tolerance:
    """How near a graph must come to PyTorch in FP32."""

    cosine_min: float
    cosine_mean: float
    score: float
    box_pixels: float
    """In the square that the detector sees a pixel may be several of the photo's."""


FP32 = Tolerance(cosine_min=0.99999, cosine_mean=0.99999, score=1e-3, box_pixels=0.5)
FP16 = Tolerance(cosine_min=0.995, cosine_mean=0.9995, score=1e-2, box_pixels=4.0)


@dataclass(frozen=True)
class Judge:
    """How the outputs of a graph are compared."""

    check: Check
    also: Callable[[Arrays], Figures] | None = None
    """A comparison with something other than PyTorch, given the graph's outputs alone."""
    tolerance: Tolerance = FP32
    batches: Sequence[int] = BATCHES
    """How many rows run at once, in turn: each size runs all rows."""

    def figures(self, inputs: Arrays, came: Arrays, wanted: Arrays) -> Figures:
        found = self.check(inputs, came, wanted, self.tolerance)
        return found | self.also(came) if self.also else found


def ignore(step: str) -> None:
    """For those who do not want to be told."""


def require(leaf: str, what: str, value: float, limit: float, at_least: bool = False) -> float:
    """Raises unless ``value`` keeps its limit; a NaN keeps none."""
    if not (value >= limit if at_least else value <= limit):
        word = "at least" if at_least else "at most"
        raise ParityError(f"{leaf}: {what} is {value:.6g}, allowed is {word} {limit:g}")
    return float(value)


def run_graph(model: onnx.ModelProto, spec: ModelSpec) -> Run:
    """A function that runs the graph.

    FP32 on the CPU. FP16 on the GPU, or with every tensor rounded on the CPU, see ``export.precision.rounded``.
    By way of a file: a session that is given bytes holds on to them, a gigabyte of a large model.
    """
    import onnxruntime

    from export.precision import is_half, rounded

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    if is_half(model):
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, "CUDAExecutionProvider")
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
    wanted: Arrays,
    judge: Judge,
    say: Callable[[str], None] = ignore,
) -> Figures:
    """Checks every row of ``inputs`` in batches of several sizes, so that a row is the same in any company.

    Args:
        wanted: the truth for all rows.
        say: is told of each batch before it runs.

    Returns:
        the worst figure of all sizes of a batch, by name
    """
    import numpy as np

    rows = len(next(iter(inputs.values())))
    figures: Figures = {}
    for batch in judge.batches:
        parts = []
        for begin in range(0, rows, batch):
            chosen = range(begin, min(begin + batch, rows))
            say(f"row {chosen[-1] + 1} of {rows}, {batch} at once")
            parts.append(run({name: value[list(chosen)] for name, value in inputs.items()}))
        came = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        figures = worst(figures, judge.figures(inputs, came, wanted))
    return figures


def worst(*figures: Figures) -> Figures:
    """The worst of each figure: the smallest cosine, the largest difference."""
    names = dict.fromkeys(name for some in figures for name in some)
    choose = {name: min if name.startswith("cosine") else max for name in names}
    return {name: choose[name](some[name] for some in figures if name in some) for name in names}


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of rows. (N, D), (N, D) → (N,)"""
    import numpy as np

    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a64, axis=-1) * np.linalg.norm(b64, axis=-1)
    return np.asarray((a64 * b64).sum(-1) / np.maximum(lengths, 1e-12))


def check_equal(leaf: str, name: str, came: np.ndarray, wanted: np.ndarray) -> None:
    import numpy as np

    if not np.array_equal(came, wanted):
        raise ParityError(
            f"{leaf}: {name} is {came.ravel()[:32].tolist()}, PyTorch says {wanted.ravel()[:32].tolist()}"
        )


def check_vectors(leaf: str, name: str, came: np.ndarray, wanted: np.ndarray, tolerance: Tolerance) -> Figures:
    """Unit vectors (B, …, D) by cosine."""
    import numpy as np

    flat, truth = came.reshape(-1, came.shape[-1]), wanted.reshape(-1, wanted.shape[-1])
    lengths = np.linalg.norm(flat, axis=-1)
    near = cosines(flat, truth)
    return {
        "cosine_min": require(leaf, f"the cosine of {name}", near.min(), tolerance.cosine_min, at_least=True),
        "cosine_mean": require(leaf, f"the mean cosine of {name}", near.mean(), tolerance.cosine_mean, at_least=True),
        "difference_max": float(np.abs(flat - truth).max()),
        "length_error_max": require(leaf, f"the distance of {name} from unit length", abs(lengths - 1).max(), 1e-4),
    }


def check_encode_image(inputs: Arrays, came: Arrays, wanted: Arrays, tolerance: Tolerance = FP32) -> Figures:
    shown = inputs["STATUS"][:, 0] < Status.NOT_AN_IMAGE
    blank = came["EMBEDDING"][~shown]
    if blank.any():
        raise ParityError("encode_image: a row without an image is not zero")
    if not shown.any():
        return {}
    return check_vectors("encode_image", "EMBEDDING", came["EMBEDDING"][shown], wanted["EMBEDDING"][shown], tolerance)


def check_encode_text(inputs: Arrays, came: Arrays, wanted: Arrays, tolerance: Tolerance = FP32) -> Figures:
    return check_vectors("encode_text", "EMBEDDING", came["EMBEDDING"], wanted["EMBEDDING"], tolerance)


def check_encode_prompt(inputs: Arrays, came: Arrays, wanted: Arrays, tolerance: Tolerance = FP32) -> Figures:
    check_equal("encode_prompt", "PROMPT_MASK", came["PROMPT_MASK"], wanted["PROMPT_MASK"])
    return check_vectors("encode_prompt", "PROMPT", came["PROMPT"], wanted["PROMPT"], tolerance)


def check_encode_phrase(inputs: Arrays, came: Arrays, wanted: Arrays, tolerance: Tolerance = FP32) -> Figures:
    """``PROMPT`` of any length, zero where there is no word. Relative to the largest value."""
    import numpy as np

    check_equal("encode_prompt", "PROMPT_MASK", came["PROMPT_MASK"], wanted["PROMPT_MASK"])
    if came["PROMPT"][came["PROMPT_MASK"] == 0].any():
        raise ParityError("encode_prompt: PROMPT is not zero where PROMPT_MASK is")
    scale = max(float(np.abs(wanted["PROMPT"]).max()), 1e-12)
    apart = np.abs(came["PROMPT"] - wanted["PROMPT"]).max() / scale
    return {"relative_max": require("encode_prompt", "the relative difference of PROMPT", apart, RELATIVE)}


def check_proposals(came: Arrays, wanted: Arrays, tolerance: Tolerance = FP32) -> Figures:
    """Grounding DINO's raw numbers: before the proposals are chosen, and after for the graph's own choice.

    Each array is (B, …) and named as in ``export.grounding_dino.PROBES``; logits are compared relative to the
    largest one, and must be infinite in the very same places; boxes are fractions of the image.
    """
    import numpy as np

    figures: Figures = {}
    for name in ("FOREGROUND", "LOGITS"):
        finite = np.isfinite(wanted[name])
        check_equal("detect", f"where {name} is finite", np.isfinite(came[name]), finite)
        scale = max(1.0, float(np.abs(wanted[name][finite]).max()))
        apart = np.abs(came[name][finite] - wanted[name][finite]).max() / scale
        figures[f"{name.lower()}_relative_max"] = require(
            "detect", f"the relative difference of {name}", apart, tolerance.score
        )
    apart = np.abs(came["BOXES"] - wanted["BOXES"]).max()
    return figures | {"boxes_difference_max": require("detect", "the difference of BOXES", apart, tolerance.score)}


def pixel_check(leaf: str, std: Sequence[float]) -> Check:
    """``fit`` and ``crop``: the same grey levels, but for a few that rounding puts one level apart."""
    import numpy as np

    to_grey = 255.0 * np.asarray(std, np.float32).reshape(1, 3, 1, 1)

    def check(inputs: Arrays, came: Arrays, wanted: Arrays, tolerance: Tolerance = FP32) -> Figures:
        check_equal(leaf, "STATUS", came["STATUS"], wanted["STATUS"])
        grey = np.abs(came["PIXELS"] - wanted["PIXELS"]) * to_grey
        figures = {
            "grey_max": require(leaf, "the difference in grey levels", grey.max(), GREY_MAX),
            "grey_share": require(leaf, "the share of differing values", (grey > 0.01).mean(), GREY_DIFFERENT),
        }
        if "BOX" in came:
            apart = np.abs(came["BOX"] - wanted["BOX"]).max()
            figures["box_pixels"] = require(leaf, "the difference of BOX in pixels", apart, 1e-3)
        return figures

    return check


def check_detect(inputs: Arrays, came: Arrays, wanted: Arrays, tolerance: Tolerance = FP32) -> Figures:
    """``detect``: the score, and a box that PyTorch rates as high.

    ``wanted`` holds every candidate of PyTorch: ``BOXES`` (B, A, 4) on the canvas, ``SCORES`` (B, A). Two boxes of
    nearly the same score may change places between runtimes, so the top one is looked for among all of them.
    """
    import numpy as np

    asked = inputs["PROMPT_MASK"].max(axis=1) > 0  # (B,)
    best = np.where(asked, wanted["SCORES"].max(axis=1), 0.0)  # (B,)
    figures = {
        "score_difference_max": require(
            "detect", "the difference of SCORE", np.abs(came["SCORE"][:, 0] - best).max(), tolerance.score
        )
    }
    apart = np.abs(came["CANVAS_BOX"][:, None] - wanted["BOXES"]).max(axis=2)  # (B, A)
    apart = np.where(wanted["SCORES"] >= best[:, None] - tolerance.score, apart, np.inf).min(axis=1)  # (B,)
    if asked.any():
        figures["box_pixels"] = require(
            "detect",
            "the distance of CANVAS_BOX from PyTorch's best box in pixels",
            apart[asked].max(),
            tolerance.box_pixels,
        )
    heights, widths = inputs["SIZE"][:, 0:1], inputs["SIZE"][:, 1:2]
    whole = np.concatenate([np.zeros_like(widths), np.zeros_like(widths), widths, heights], axis=1)
    check_equal("detect", "CANVAS_BOX of an empty prompt", came["CANVAS_BOX"][~asked], whole[~asked].astype("f4"))
    return figures


def check_against_pil(leaf: str, pixels: np.ndarray, wanted: np.ndarray, std: Sequence[float]) -> Figures:
    """The graph's pixels against open_clip's own transform of PIL's crops. (N, 3, R, R) each"""
    import numpy as np

    grey = np.abs(pixels - wanted) * 255.0 * np.asarray(std, np.float32).reshape(1, 3, 1, 1)
    mean = grey.mean(axis=(1, 2, 3)).max()
    return {
        "pil_grey_mean": require(leaf, "the mean difference from PIL in grey levels", mean, PIL_GREY_MEAN),
        "pil_grey_max": float(grey.max()),
    }


def check_tokenizer(leaf: str, tokenizer: Any, original: Any, texts: Sequence[str]) -> Figures:
    """The very same ids as open_clip's tokenizer."""
    wanted = original(list(texts)).tolist()
    came = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    for text, mine, theirs in zip(texts, came, wanted, strict=True):
        if mine != theirs:
            raise ParityError(f"{leaf}: {text[:60]!r} becomes {mine[:12]} …, open_clip says {theirs[:12]} …")
    return {"texts_equal": float(len(texts))}
