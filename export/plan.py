"""What each leaf is made of, with which examples it is traced, and how its graph is judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from export import examples, gate
from export.errors import UsageError
from export.precision import GROUNDING_DINO, OPEN_CLIP, YOLO_WORLD, Policy
from export.sources import Encoder, LoadedDetector
from serving.repository.manifest import Settings
from serving.repository.specs import CANVASES, LEAVES, Status, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """Example inputs of a leaf, and what its graph must give for them."""

    inputs: dict[str, Tensor]
    expected: Callable[[], dict[str, np.ndarray]] | None = None
    """PyTorch's results, if the check needs more than the outputs of the module."""
    also: Callable[[gate.Arrays], gate.Figures] | None = None
    """A comparison with something other than PyTorch, given the graph's outputs for all rows."""


@dataclass(frozen=True)
class LeafExport:
    """A leaf on its way: its module, example inputs, and how its graph is judged."""

    name: str
    module: nn.Module
    cases: Sequence[Case]
    """At least one. The graph is traced with the first, and verified with all."""
    check: gate.Check
    half: Policy | None = None
    """What computes in FP16; without it, nothing."""
    probes: tuple[TensorSpec, ...] = ()
    """Outputs that the graph has beside the leaf's own until ``check`` has seen them."""
    batches: tuple[int, ...] = gate.BATCHES
    """How many rows run at once, in turn: each size runs all rows."""

    def expected(self, case: Case) -> dict[str, np.ndarray]:
        """PyTorch's results for a case."""
        import torch

        with torch.no_grad():
            if case.expected:
                return case.expected()
            values = self.module(*case.inputs.values())
        names = [tensor.name for tensor in LEAVES[self.name].outputs]
        tensors = values if isinstance(values, tuple) else (values,)
        return {name: value.numpy() for name, value in zip(names, tensors, strict=True)}

    def verify(self, run: gate.Run, say: Callable[[str], None] = gate.ignore) -> gate.Figures:
        """Compare the outputs of ``run`` with PyTorch's for every case, and return the worst figures.

        Raises:
            ParityError: they differ by more than the tolerance.
        """
        tolerance = gate.FP16 if self.half else gate.FP32
        figures: gate.Figures = {}
        for case in self.cases:
            inputs = {name: value.numpy() for name, value in case.inputs.items()}
            judge = gate.Judge(self.check, case.also, tolerance, self.batches)
            figures = gate.worst(figures, gate.compare(run, inputs, self.expected(case), judge, say))
        return figures


@dataclass(frozen=True)
class PromptEncoder:
    """Text to ``PROMPT``: a tokenizer, the ``encode_prompt`` of its ids, and how that is judged."""

    module: nn.Module
    tokenizer: Any  # open_clip's, or a PhraseTokenizer
    check: gate.Check


@dataclass(frozen=True)
class Photos:
    """Example images as ``decode`` gives them, the last one not decoded, and boxes as ``detect`` gives them."""

    placed: list[Any]  # PIL, as they lie on the canvas
    canvas: Tensor  # (B, S, S, 3)
    size: Tensor  # (B, 4)
    decoded: Tensor  # (B, 1)
    boxes: Tensor  # (B, 4)
    scores: Tensor  # (B, 1)

    @property
    def inputs(self) -> dict[str, Tensor]:
        return {"CANVAS": self.canvas, "SIZE": self.size, "DECODED": self.decoded}


def example_photos(canvas: int) -> Photos:
    import torch

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


def plan(
    settings: Settings,
    detector: LoadedDetector,
    encoder: Encoder,
    prompts: PromptEncoder,
    canvases: Sequence[int] = CANVASES,
) -> list[LeafExport]:
    """The six graphs, from the prompt to the embedding. Those that take a canvas are verified at every side."""
    import torch

    photos = [example_photos(side) for side in canvases]
    tokens = torch.as_tensor(prompts.tokenizer(examples.TEXTS[: examples.ROWS]))  # (B, T)
    with torch.no_grad():
        prompt, mask = prompts.module.eval()(tokens)
    plan_detector = plan_detect if detector.tokenizer is None else plan_detect_phrase
    leaves = [
        LeafExport("encode_prompt", prompts.module, [Case({"TOKENS": tokens})], prompts.check),
        plan_detector(detector, photos, prompt, mask),
        *plan_pixels(settings, encoder, photos),
        *plan_encoders(encoder),
    ]
    if settings.precision == "fp32":
        return leaves
    policies = OPEN_CLIP | (YOLO_WORLD if detector.tokenizer is None else GROUNDING_DINO)
    return [replace(leaf, half=policies.get(leaf.name)) for leaf in leaves]


def plan_detect(detector: LoadedDetector, photos: Sequence[Photos], prompt: Tensor, mask: Tensor) -> LeafExport:
    from export.images import Detect, YoloWorld, to_canvas

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
"""The examples that verify Grounding DINO. The canvases take turns with them, since each image takes seconds and half a
gigabyte: a flat one with the longest prompt, an upright one with a shorter prompt, one without a prompt, and one that
was not decoded."""
PHRASE_BATCHES = (1, 2)


def plan_detect_phrase(detector: LoadedDetector, photos: Sequence[Photos], prompt: Tensor, mask: Tensor) -> LeafExport:
    """Grounding DINO's ``detect``, judged step by step where the graph has its probes: see ``DetectWithProbes``."""
    from dataclasses import fields

    import torch

    from export.grounding_dino import PROBES, DetectWithProbes, Encoded, GroundingDino
    from export.images import to_canvas

    dino = GroundingDino(detector.model, detector.side).eval()
    names = [field.name for field in fields(Encoded)]

    def encoded_rows(inputs: dict[str, Tensor]) -> dict[str, np.ndarray]:
        """The rows one at a time, which takes less memory: every batch must give the same."""
        rows = []
        for canvas, size, *asked in zip(*(value.split(1) for value in inputs.values()), strict=True):
            rows.append(dino.encode(dino.place(canvas, size), *asked))
        return {name: torch.cat([getattr(row, name) for row in rows]).numpy() for name in names}

    def check(
        inputs: gate.Arrays, came: gate.Arrays, wanted: gate.Arrays, tolerance: gate.Tolerance = gate.FP32
    ) -> gate.Figures:
        size = torch.from_numpy(inputs["SIZE"])
        boxed = dino.place(torch.from_numpy(inputs["CANVAS"]), size)
        encoded = Encoded(**{name: torch.from_numpy(wanted[name]) for name in names})
        figures: gate.Figures = {}
        with torch.no_grad():
            if "CHOSEN" in came:
                logits, boxes = dino.decode(encoded, torch.from_numpy(came["CHOSEN"]))
                truth = {"FOREGROUND": wanted["foreground"], "LOGITS": logits.numpy(), "BOXES": boxes.numpy()}
                figures = gate.check_proposals(came, truth, tolerance)
                # Its own numbers, now that they are right: of two boxes of one score, either may win.
                logits, boxes = torch.from_numpy(came["LOGITS"]), torch.from_numpy(came["BOXES"])
            else:
                logits, boxes = dino.decode(encoded, dino.propose(encoded))
            found, scores = dino.rate(boxed, logits, boxes)
        answer = {"BOXES": to_canvas(found, boxed, size).numpy(), "SCORES": scores.numpy()}
        return figures | gate.check_detect(inputs, came, answer, tolerance)

    cases = []
    for number, some in enumerate(photos):
        rows = PHRASE_ROWS[number :: len(photos)]
        values = {"CANVAS": some.canvas, "SIZE": some.size, "PROMPT": prompt, "PROMPT_MASK": mask}
        inputs = {name: value[rows] for name, value in values.items()}
        cases.append(Case(inputs, cache(partial(encoded_rows, inputs))))
    return LeafExport("detect", DetectWithProbes(dino), cases, check, probes=PROBES, batches=PHRASE_BATCHES)


def plan_pixels(settings: Settings, encoder: Encoder, photos: Sequence[Photos]) -> list[LeafExport]:
    """``crop`` and ``fit``, compared with PIL and open_clip's transform too."""
    import torch

    from export.images import Crop, Fit
    from export.reference import crop_outwards

    std = encoder.preprocessing.std
    trusted = [score >= settings.threshold for score in examples.SCORES]

    def cropped(photos: Photos) -> list[Any]:
        return [
            crop_outwards(image, box) if good else image
            for image, box, good in zip(photos.placed, examples.BOXES, trusted, strict=False)
        ]

    def against_pil(leaf: str, images: list[Any]) -> Callable[[gate.Arrays], gate.Figures]:
        truth = torch.stack([encoder.transform(image) for image in images]).numpy()
        return lambda came: gate.check_against_pil(leaf, came["PIXELS"][: len(truth)], truth, std)

    crop, fit = Crop(encoder.preprocessing, settings.threshold), Fit(encoder.preprocessing)
    crops = [
        Case({**some.inputs, "CANVAS_BOX": some.boxes, "SCORE": some.scores}, also=against_pil("crop", cropped(some)))
        for some in photos
    ]
    fits = [Case(some.inputs, also=against_pil("fit", some.placed)) for some in photos]
    return [
        LeafExport("crop", crop, crops, gate.pixel_check("crop", std)),
        LeafExport("fit", fit, fits, gate.pixel_check("fit", std)),
    ]


def plan_encoders(encoder: Encoder) -> list[LeafExport]:
    import torch

    from export.encoders import EncodeImage, EncodeText, image_weights, require_one_file, text_weights

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
