"""The exported graphs: the module of each leaf, its example inputs, and how the gate judges it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export import examples, gate
from export.encoders import EncodeImage, EncodeText, image_weights, require_one_file, text_weights
from export.errors import UsageError
from export.grounding_dino import PROBES, DetectWithProbes, Encoded, GroundingDino
from export.images import Crop, Detect, Fit, YoloWorld, to_canvas
from export.load_detector import LoadedDetector
from export.load_encoder import Encoder
from export.precision import GROUNDING_DINO, OPEN_CLIP, YOLO_WORLD, Policy
from export.reference import crop_outwards
from serving.repository.manifest import Settings
from serving.repository.specs import CANVASES, LEAVES, ModelSpec, Status, TensorSpec
from serving.repository.versions import GIVEN_BY


@dataclass(frozen=True)
class Case:
    """Example inputs of a leaf, and what its graph must give for them."""

    inputs: dict[str, Tensor]
    expected: Callable[[], dict[str, np.ndarray]] | None = None
    """PyTorch's results, if the check needs more than the outputs of the module."""
    also: Callable[[gate.Arrays], gate.Figures] | None = None
    """A comparison with something other than PyTorch. It gets the graph's outputs for all rows."""


@dataclass(frozen=True)
class LeafExport:
    """A leaf that is to be exported."""

    name: str
    module: nn.Module
    cases: Sequence[Case]
    """At least one. The graph is traced with the first, and verified with all."""
    check: gate.Check
    half: Policy | None = None
    """The parts that compute in FP16, if there are any."""
    probes: tuple[TensorSpec, ...] = ()
    """Additional outputs of the graph, which are removed after the check."""
    batches: tuple[int, ...] = gate.BATCHES
    """Numbers of rows that run at once. With each of them, all rows run."""
    versions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The numbers of each output that names the version."""

    @property
    def traced(self) -> ModelSpec:
        """What the module computes: the leaf without its versions, which ``export.stamp`` adds, and with its probes."""
        spec, added = LEAVES[self.name], GIVEN_BY.get(self.name, {})
        return ModelSpec(spec.inputs, tuple(one for one in spec.outputs if one.name not in added) + self.probes)

    def expected(self, case: Case) -> dict[str, np.ndarray]:
        """PyTorch's results for a case."""
        with torch.no_grad():
            if case.expected:
                return case.expected()
            values = self.module(*case.inputs.values())
        names = [tensor.name for tensor in self.traced.outputs]
        tensors = values if isinstance(values, tuple) else (values,)
        return {name: value.numpy() for name, value in zip(names, tensors, strict=True)}

    def judge(self, case: Case) -> gate.Judge:
        """The comparison of a case: with PyTorch, and with something else if the case has it."""
        tolerance = gate.FP16 if self.half else gate.FP32

        def judge(inputs: gate.Arrays, actual: gate.Arrays, expected: gate.Arrays) -> gate.Figures:
            figures = self.check(inputs, actual, expected, tolerance)
            for name, numbers in self.versions.items():
                gate.check_equal(
                    self.name, name, actual[name], np.tile(np.array(numbers, np.int32), (len(actual[name]), 1))
                )
            return figures | case.also(actual) if case.also else figures

        return judge

    def verify(self, run: gate.Run, step: Callable[[str], None] = gate.ignore) -> gate.Figures:
        """Compare the outputs of ``run`` with PyTorch's for every case, and return the worst figures.

        Raises:
            ParityError: they differ by more than the tolerance.
        """
        figures: gate.Figures = {}
        for case in self.cases:
            inputs = {name: value.numpy() for name, value in case.inputs.items()}
            found = gate.compare(run, inputs, self.expected(case), self.judge(case), self.batches, step)
            figures = gate.worst(figures, found)
        return figures


@dataclass(frozen=True)
class PromptEncoder:
    """Text to ``PROMPT``: a tokenizer, the module of ``encode_prompt``, and its check."""

    module: nn.Module
    tokenizer: Any
    """open_clip's tokenizer or a ``PhraseTokenizer``"""
    check: gate.Check


@dataclass(frozen=True)
class Photos:
    """Example outputs of ``decode`` and ``detect``. The last image was not decoded."""

    placed: list[Any]
    """PIL images as they lie on the canvas."""
    canvas: Tensor  # (B, S, S, 3)
    size: Tensor  # (B, 4)
    decoded: Tensor  # (B, 1)
    boxes: Tensor  # (B, 4)
    scores: Tensor  # (B, 1)

    @property
    def inputs(self) -> dict[str, Tensor]:
        return {"CANVAS": self.canvas, "SIZE": self.size, "DECODED": self.decoded}


def example_photos(canvas: int) -> Photos:
    canvases, sizes, placed = examples.canvases(examples.pictures(), canvas)
    blank = torch.zeros(1, canvas, canvas, 3, dtype=torch.uint8)
    decoded = torch.zeros(examples.ROWS, 1, dtype=torch.int32)
    decoded[-1] = int(Status.TOO_LARGE)
    return Photos(
        placed=placed,
        canvas=torch.cat([torch.from_numpy(canvases), blank]),
        size=torch.cat([torch.from_numpy(sizes), torch.zeros(1, 4, dtype=torch.int32)]),
        decoded=decoded,
        boxes=torch.tensor(examples.BOXES, dtype=torch.float32),
        scores=torch.tensor(examples.SCORES, dtype=torch.float32)[:, None],
    )


def leaves_of(
    settings: Settings,
    detector: LoadedDetector,
    encoder: Encoder,
    prompts: PromptEncoder,
    canvases: Sequence[int] = CANVASES,
) -> list[LeafExport]:
    """The six graphs, from the prompt to the embedding. Those that take a canvas are verified at every side."""
    photos = [example_photos(side) for side in canvases]
    tokens = torch.as_tensor(prompts.tokenizer(examples.TEXTS[: examples.ROWS]))  # (B, T)
    with torch.no_grad():
        prompt, mask = prompts.module.eval()(tokens)
    detect = detect_leaf if detector.tokenizer is None else phrase_detect_leaf
    leaves = [
        LeafExport("encode_prompt", prompts.module, [Case({"TOKENS": tokens})], prompts.check),
        detect(detector, photos, prompt, mask),
        *pixel_leaves(settings, encoder, photos),
        *encoder_leaves(encoder),
    ]
    if settings.precision == "fp32":
        return leaves
    policies = OPEN_CLIP | (YOLO_WORLD if detector.tokenizer is None else GROUNDING_DINO)
    return [replace(leaf, half=policies.get(leaf.name)) for leaf in leaves]


def detect_leaf(detector: LoadedDetector, photos: Sequence[Photos], prompt: Tensor, mask: Tensor) -> LeafExport:
    """``detect`` with YOLO-World."""
    yolo = YoloWorld(detector.model, detector.side).eval()
    if prompt.shape[2] != yolo.prompt_width:
        raise UsageError(
            f"the detector takes prompts of width {yolo.prompt_width}, the prompt encoder gives {prompt.shape[2]}: "
            f"name the one it was trained with as --prompt-encoder"
        )

    def every_box(canvas: Tensor, size: Tensor) -> dict[str, np.ndarray]:
        boxed = yolo.place(canvas, size)
        boxes, scores = yolo(boxed, prompt, mask)
        return {"BOXES": to_canvas(boxes, boxed, size).numpy(), "SCORES": scores.numpy()}

    cases = [
        Case(
            {"CANVAS": some.canvas, "SIZE": some.size, "PROMPT": prompt, "PROMPT_MASK": mask},
            partial(every_box, some.canvas, some.size),
        )
        for some in photos
    ]
    return LeafExport("detect", Detect(yolo), cases, gate.check_detect)


PHRASE_ROWS = [5, 0, 1, 7]
"""The examples that verify Grounding DINO, divided among the canvases because each takes seconds and half a gigabyte: a
flat image with the longest prompt, an upright one with a shorter prompt, one without a prompt, one not decoded."""
PHRASE_BATCHES = (1, 2)


def phrase_detect_leaf(detector: LoadedDetector, photos: Sequence[Photos], prompt: Tensor, mask: Tensor) -> LeafExport:
    """``detect`` with Grounding DINO, judged step by step if the graph has its probes: see ``DetectWithProbes``."""
    dino = GroundingDino(detector.model, detector.side).eval()
    names = [field.name for field in fields(Encoded)]

    def encoded_rows(inputs: dict[str, Tensor]) -> dict[str, np.ndarray]:
        """The rows one at a time, which takes less memory. Every batch must give the same."""
        rows = []
        for canvas, size, *asked in zip(*(torch.split(value, 1) for value in inputs.values()), strict=True):
            rows.append(dino.encode(dino.place(canvas, size), *asked))
        return {name: torch.cat([getattr(row, name) for row in rows]).numpy() for name in names}

    def check(
        inputs: gate.Arrays, actual: gate.Arrays, expected: gate.Arrays, tolerance: gate.Tolerance = gate.FP32
    ) -> gate.Figures:
        size = torch.from_numpy(inputs["SIZE"])
        boxed = dino.place(torch.from_numpy(inputs["CANVAS"]), size)
        encoded = Encoded(**{name: torch.from_numpy(expected[name]) for name in names})
        figures: gate.Figures = {}
        with torch.no_grad():
            if "CHOSEN" in actual:
                logits, boxes = dino.decode(encoded, torch.from_numpy(actual["CHOSEN"]))
                truth = {"FOREGROUND": expected["foreground"], "LOGITS": logits.numpy(), "BOXES": boxes.numpy()}
                figures = gate.check_proposals(actual, truth, tolerance)
                # The graph's own numbers, which were just compared: of two boxes with one score, either may win.
                logits, boxes = torch.from_numpy(actual["LOGITS"]), torch.from_numpy(actual["BOXES"])
            else:
                logits, boxes = dino.decode(encoded, dino.propose(encoded))
            found, scores = dino.rate(boxed, logits, boxes)
        every_box = {"BOXES": to_canvas(found, boxed, size).numpy(), "SCORES": scores.numpy()}
        return figures | gate.check_detect(inputs, actual, every_box, tolerance)

    cases = []
    for number, some in enumerate(photos):
        rows = PHRASE_ROWS[number :: len(photos)]
        values = {"CANVAS": some.canvas, "SIZE": some.size, "PROMPT": prompt, "PROMPT_MASK": mask}
        inputs = {name: value[rows] for name, value in values.items()}
        cases.append(Case(inputs, cache(partial(encoded_rows, inputs))))
    return LeafExport("detect", DetectWithProbes(dino), cases, check, probes=PROBES, batches=PHRASE_BATCHES)


def pixel_leaves(settings: Settings, encoder: Encoder, photos: Sequence[Photos]) -> list[LeafExport]:
    """``crop`` and ``fit``. They are also compared with PIL and open_clip's transform."""
    std = encoder.preprocessing.std
    trusted = [score >= settings.threshold for score in examples.SCORES]

    def cropped(photos: Photos) -> list[Any]:
        return [
            crop_outwards(image, box) if good else image
            for image, box, good in zip(photos.placed, examples.BOXES, trusted, strict=False)
        ]

    def against_pil(leaf: str, images: list[Any]) -> Callable[[gate.Arrays], gate.Figures]:
        truth = torch.stack([encoder.transform(image) for image in images]).numpy()
        return lambda actual: gate.check_against_pil(leaf, actual["PIXELS"][: len(truth)], truth, std)

    crops = [
        Case({**some.inputs, "CANVAS_BOX": some.boxes, "SCORE": some.scores}, also=against_pil("crop", cropped(some)))
        for some in photos
    ]
    fits = [Case(some.inputs, also=against_pil("fit", some.placed)) for some in photos]
    return [
        LeafExport("crop", Crop(encoder.preprocessing, settings.threshold), crops, gate.pixel_check("crop", std)),
        LeafExport("fit", Fit(encoder.preprocessing), fits, gate.pixel_check("fit", std)),
    ]


def encoder_leaves(encoder: Encoder) -> list[LeafExport]:
    """``encode_image`` and ``encode_text``."""
    require_one_file("encode_image", image_weights(encoder.model))
    require_one_file("encode_text", text_weights(encoder.model))
    pixels = torch.stack([encoder.transform(image) for image in examples.pictures()])
    status = torch.zeros(len(pixels), 1, dtype=torch.int32)
    status[1], status[3] = int(Status.WHOLE_IMAGE), int(Status.NOT_AN_IMAGE)
    tokens = torch.as_tensor(encoder.tokenizer(examples.TEXTS))
    images, texts = Case({"PIXELS": pixels, "STATUS": status}), Case({"TOKENS": tokens})
    return [
        LeafExport("encode_image", EncodeImage(encoder.model), [images], gate.check_encode_image),
        LeafExport("encode_text", EncodeText(encoder.model), [texts], gate.check_encode_text),
    ]
