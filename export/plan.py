"""What each leaf is made of, with which examples it is traced, and how its graph is judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from export import examples, gate
from export.errors import UsageError
from export.precision import GROUNDING_DINO, OPEN_CLIP, YOLO_WORLD, Policy
from export.sources import Encoder, LoadedDetector
from serving.repository.manifest import Settings
from serving.repository.specs import LEAVES, Status, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


@dataclass(frozen=True)
class LeafExport:
    """A leaf on its way: its module, example inputs, and how its graph is judged."""

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    check: gate.Check
    wanted: Callable[[], dict[str, np.ndarray]] | None = None
    """PyTorch's truth for ``check``, where it is more than the module's outputs."""
    also: Callable[[gate.Arrays], gate.Figures] | None = None
    """A comparison with something other than PyTorch, given the graph's outputs for all rows."""
    half: Policy | None = None
    """What computes in FP16; without it, nothing."""
    probes: tuple[TensorSpec, ...] = ()
    """Outputs that the graph has beside the leaf's own until ``check`` has seen them."""
    batches: tuple[int, ...] = gate.BATCHES
    """How many rows run at once, in turn: each size runs all rows."""

    @property
    def judge(self) -> gate.Judge:
        return gate.Judge(self.check, self.also, gate.FP16 if self.half else gate.FP32, self.batches)


@dataclass(frozen=True)
class PromptEncoder:
    """Text to ``PROMPT``: a tokenizer, the ``encode_prompt`` of its ids, and how that is judged."""

    module: nn.Module
    tokenizer: Any  # open_clip's, or a PhraseTokenizer
    check: gate.Check


@dataclass(frozen=True)
class Photos:
    """Example images as ``decode`` gives them, the last one not decoded, and boxes as ``detect`` gives them."""

    images: list[Any]  # PIL
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

    images = examples.pictures()
    canvases, sizes, placed = examples.canvases(images, canvas)
    blank = torch.zeros(1, canvas, canvas, 3, dtype=torch.uint8)
    decoded = torch.zeros(examples.ROWS, 1, dtype=torch.int32)
    decoded[-1] = int(Status.TOO_LARGE)
    return Photos(
        images=images,
        placed=placed,
        canvas=torch.cat([torch.from_numpy(canvases), blank]),
        size=torch.cat([torch.from_numpy(sizes), torch.zeros(1, 4, dtype=torch.int32)]),
        decoded=decoded,
        boxes=torch.tensor(examples.BOXES, dtype=torch.float32),
        scores=torch.tensor(examples.SCORES, dtype=torch.float32)[:, None],
    )


def plan(settings: Settings, detector: LoadedDetector, encoder: Encoder, prompts: PromptEncoder) -> list[LeafExport]:
    """The six graphs, from the prompt to the embedding."""
    import torch

    photos = example_photos(settings.canvas)
    tokens = torch.as_tensor(prompts.tokenizer(examples.TEXTS[: examples.ROWS]))  # (B, T)
    with torch.no_grad():
        prompt, mask = prompts.module.eval()(tokens)
    plan_detector = plan_detect if detector.tokenizer is None else plan_detect_phrase
    leaves = [
        LeafExport("encode_prompt", prompts.module, {"TOKENS": tokens}, prompts.check),
        plan_detector(detector, photos, prompt, mask),
        *plan_pixels(settings, encoder, photos),
        *plan_encoders(encoder, photos),
    ]
    if settings.precision == "fp32":
        return leaves
    policies = OPEN_CLIP | (YOLO_WORLD if detector.tokenizer is None else GROUNDING_DINO)
    return [replace(leaf, half=policies.get(leaf.name)) for leaf in leaves]


def plan_detect(detector: LoadedDetector, photos: Photos, prompt: Tensor, mask: Tensor) -> LeafExport:
    from export.images import Detect, YoloWorld, to_canvas

    yolo = YoloWorld(detector.model, detector.side).eval()
    if prompt.shape[2] != yolo.prompt_width:
        raise UsageError(
            f"the detector takes prompts of width {yolo.prompt_width}, the prompt encoder gives {prompt.shape[2]}: "
            f"name the one it was trained with as --prompt-encoder"
        )

    def every_box() -> dict[str, np.ndarray]:
        boxed = yolo.place(photos.canvas, photos.size)
        boxes, scores = yolo(boxed, prompt, mask)
        return {"BOXES": to_canvas(boxes, boxed, photos.size).numpy(), "SCORES": scores.numpy()}

    inputs = {"CANVAS": photos.canvas, "SIZE": photos.size, "PROMPT": prompt, "PROMPT_MASK": mask}
    return LeafExport("detect", Detect(yolo), inputs, gate.check_detect, every_box)


PHRASE_ROWS = [5, 1, 0, 7]
"""Of the examples, those that judge Grounding DINO, whose images take seconds and half a gigabyte each: flat with the
longest prompt, one without a prompt; upright with a shorter one, one that was not decoded."""
PHRASE_BATCHES = (1, 2)


def plan_detect_phrase(detector: LoadedDetector, photos: Photos, prompt: Tensor, mask: Tensor) -> LeafExport:
    """Grounding DINO's ``detect``, judged step by step where the graph has its probes: see ``DetectWithProbes``."""
    from dataclasses import fields

    import torch

    from export.grounding_dino import PROBES, DetectWithProbes, Encoded, GroundingDino
    from export.images import to_canvas

    dino = GroundingDino(detector.model, detector.side).eval()
    names = [field.name for field in fields(Encoded)]
    given = {"CANVAS": photos.canvas, "SIZE": photos.size, "PROMPT": prompt, "PROMPT_MASK": mask}
    inputs = {name: value[PHRASE_ROWS] for name, value in given.items()}

    @cache
    def encoded_rows() -> dict[str, np.ndarray]:
        """One at a time: what any batch must give, and in less memory."""
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

    return LeafExport(
        "detect", DetectWithProbes(dino), inputs, check, encoded_rows, probes=PROBES, batches=PHRASE_BATCHES
    )


def plan_pixels(settings: Settings, encoder: Encoder, photos: Photos) -> list[LeafExport]:
    """``crop`` and ``fit``, compared with PIL and open_clip's transform too."""
    import torch

    from export.images import Crop, Fit
    from export.reference import crop_outwards

    std = encoder.preprocessing.std
    trusted = [score >= settings.threshold for score in examples.SCORES]
    cropped = [
        crop_outwards(image, box) if good else image
        for image, box, good in zip(photos.placed, examples.BOXES, trusted, strict=False)
    ]

    def against_pil(leaf: str, images: list[Any]) -> Callable[[gate.Arrays], gate.Figures]:
        truth = torch.stack([encoder.transform(image) for image in images]).numpy()
        return lambda came: gate.check_against_pil(leaf, came["PIXELS"][: len(truth)], truth, std)

    crop, fit = Crop(encoder.preprocessing, settings.threshold), Fit(encoder.preprocessing)
    boxed = {**photos.inputs, "CANVAS_BOX": photos.boxes, "SCORE": photos.scores}
    return [
        LeafExport("crop", crop, boxed, gate.pixel_check("crop", std), also=against_pil("crop", cropped)),
        LeafExport("fit", fit, photos.inputs, gate.pixel_check("fit", std), also=against_pil("fit", photos.placed)),
    ]


def plan_encoders(encoder: Encoder, photos: Photos) -> list[LeafExport]:
    import torch

    from export.encoders import EncodeImage, EncodeText, image_weights, require_one_file, text_weights

    require_one_file("encode_image", image_weights(encoder.model))
    require_one_file("encode_text", text_weights(encoder.model))
    pixels = torch.stack([encoder.transform(image) for image in photos.images])
    status = torch.zeros(len(pixels), 1, dtype=torch.int32)
    status[1], status[3] = int(Status.WHOLE_IMAGE), int(Status.NOT_AN_IMAGE)
    tokens = torch.as_tensor(encoder.tokenizer(examples.TEXTS))
    image_inputs = {"PIXELS": pixels, "STATUS": status}
    return [
        LeafExport("encode_image", EncodeImage(encoder.model), image_inputs, gate.check_encode_image),
        LeafExport("encode_text", EncodeText(encoder.model), {"TOKENS": tokens}, gate.check_encode_text),
    ]


def truth_of(leaf: LeafExport) -> dict[str, np.ndarray]:
    """What PyTorch gives for the example inputs."""
    import torch

    with torch.no_grad():
        if leaf.wanted:
            return leaf.wanted()
        values = leaf.module(*leaf.inputs.values())
    names = [tensor.name for tensor in LEAVES[leaf.name].outputs]
    tensors = values if isinstance(values, tuple) else (values,)
    return {name: value.numpy() for name, value in zip(names, tensors, strict=True)}
