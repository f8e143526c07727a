"""Export from the weights to verified artefacts in the model repository: trace, clean, compact, verify, place."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export import examples, gate, repository
from export.errors import UsageError
from export.precision import GROUNDING_DINO, OPEN_CLIP, YOLO_WORLD, Policy, with_policy
from export.quiet import quiet_ultralytics
from export.sources import (
    YOLO_WORLD_TEXT,
    DetectorSource,
    Encoder,
    EncoderSource,
    LoadedDetector,
    load_detector,
    load_encoder,
    resolve_detector,
    resolve_encoder,
)
from export.specs import LEAVES, ModelSpec, Status, TensorSpec
from export.tensorrt import (
    PLAN,
    SECONDS_BETWEEN_NEWS,
    Compiler,
    Engine,
    Limits,
    compile_graph,
    find_compiler,
    limits_of,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

Say = Callable[[str], None]
"""Takes lines that report; one that ends in … says what is being done until the next: see ``export.progress``."""


@dataclass(frozen=True)
class Settings:
    """What goes into the graphs beside the weights."""

    threshold: float
    canvas: int = 640
    detector_side: int | None = None
    precision: str = "fp32"
    format: str = "onnx"


@dataclass(frozen=True)
class Request:
    """Everything that decides what the artefacts are."""

    detector: DetectorSource
    encoder: EncoderSource
    prompt_encoder: EncoderSource | None
    """``None`` where the detector brings its own."""
    settings: Settings

    def describe(self) -> dict[str, Any]:
        return {
            "detector": self.detector.describe(),
            "encoder": self.encoder.describe(),
            "prompt_encoder": self.prompt_encoder.describe() if self.prompt_encoder else None,
            "settings": asdict(self.settings),
            "code": code_sha256(),
        }


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


def make_request(
    detector: str,
    encoder: str,
    *,
    threshold: float,
    canvas: int = 640,
    pretrained: str | None = None,
    checkpoint: str | None = None,
    detector_weights: str | None = None,
    detector_side: int | None = None,
    prompt_encoder: str | None = None,
    random_weights: bool = False,
    format: str = "onnx",
    tokenizer: str | None = None,
    precision: str = "fp32",
) -> Request:
    """Refuses what cannot work before anything is loaded."""
    if not 0.0 <= threshold <= 1.0:
        raise UsageError(f"the threshold must be between 0 and 1, came {threshold}")
    if not 32 <= canvas <= 4096:
        raise UsageError(f"the canvas must have between 32 and 4096 pixels a side, came {canvas}")
    detector_source = resolve_detector(detector, detector_weights, random_weights)
    encoder_source = resolve_encoder(encoder, pretrained, checkpoint, random_weights, tokenizer)
    prompt_source: EncoderSource | None
    if detector_source.is_grounding_dino:
        if prompt_encoder:
            raise UsageError(f"{detector} brings its own prompt encoder: leave out --prompt-encoder")
        prompt_source = None
    elif prompt_encoder:
        prompt_source = resolve_encoder(prompt_encoder, random=random_weights and prompt_encoder != "mini")
    elif detector == "mini":
        prompt_source = resolve_encoder("mini")
    else:
        name, tag = YOLO_WORLD_TEXT
        prompt_source = resolve_encoder(name, tag, random=random_weights)
    settings = Settings(threshold, canvas, detector_side, precision, format)
    return Request(detector_source, encoder_source, prompt_source, settings)


def build(
    request: Request,
    out: Path,
    version: int = 1,
    force: bool = False,
    say: Say = print,
    compiler: Compiler | None = None,
) -> repository.Manifest:
    """Exports, verifies and places every artefact; the repository changes only if all of them pass.

    Args:
        compiler: builds the plans of ``format="tensorrt"``; without it TensorRT and a GPU are looked for here.

    Raises:
        ExportError: in one sentence; the repository is as it was.
    """
    described = request.describe()
    present = repository.read_manifest(repository.manifest_path(out, version))
    if present and not force and present.get("request") == described and repository.is_complete(out, present):
        if repository.read_served(out) == present:
            say(f"{out} already holds this export as version {version}; nothing to do (--force exports again)")
        else:
            repository.serve_version(out, version)
            say(f"{out} already holds this export as version {version}, which is now the one that is served")
        return present

    if request.settings.format == "tensorrt":
        compiler = compiler or find_compiler()
    quiet_ultralytics()
    with repository.staging(out) as staged:
        say(f"loading the detector {request.detector.name} …")
        detector = load_detector(request.detector, request.settings.detector_side)
        say(f"loading the encoder {request.encoder.label} …")
        encoder = load_encoder(request.encoder)
        say("loading the prompt encoder …")
        prompts = load_prompt_encoder(request, detector, encoder)
        leaves: dict[str, Any] = {}
        symbols: dict[str, dict[str, int]] = {}
        begun = time.perf_counter()

        def done(name: str, entry: dict[str, Any]) -> None:
            nonlocal begun
            leaves[name] = entry
            say(f"{time.perf_counter() - begun:5.1f} s  {repository.describe_leaf(name, entry)}")
            begun = time.perf_counter()

        for name, tokenizer in (("tokenize", encoder.tokenizer), ("tokenize_prompt", prompts.tokenizer)):
            done(name, export_tokenizer(name, tokenizer, staged / name))
        say("running PyTorch on the examples …")
        for leaf in plan(request.settings, detector, encoder, prompts):
            entry, symbols[leaf.name] = export_leaf(leaf, described, staged / leaf.name, say)
            if compiler and request.settings.format == "tensorrt":
                say(f"{leaf.name}: compiling …")
                limits = limits_of(out, leaf.name, request.settings.canvas)
                entry |= compile_leaf(leaf, staged / leaf.name, limits, compiler, say)
            done(leaf.name, entry)
        manifest = {
            "version": version,
            "request": described,
            "detector_side": detector.side,
            "preprocessing": encoder.preprocessing.to_dict(),
            "symbols": symbols,
            "libraries": libraries(),
            "leaves": leaves,
        }
        repository.furnish(staged, out)
        repository.put_in_place(staged, out, version, leaves, repository.write_manifest(manifest))
    say(f"{out} now holds and serves version {version}")
    return manifest


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


def load_prompt_encoder(request: Request, detector: LoadedDetector, encoder: Encoder) -> PromptEncoder:
    """The detector's own, or the text tower of a CLIP, which may be the encoder's."""
    if request.prompt_encoder is None:
        from export.grounding_dino import EncodeDinoPrompt
        from export.phrases import PhraseTokenizer

        tokenizer = PhraseTokenizer(detector.tokenizer)
        return PromptEncoder(EncodeDinoPrompt(detector.model), tokenizer, gate.check_encode_phrase)

    from export.encoders import EncodePrompt, require_one_file, text_weights

    clip = encoder if request.prompt_encoder == request.encoder else load_encoder(request.prompt_encoder)
    require_one_file("encode_prompt", text_weights(clip.model))
    return PromptEncoder(EncodePrompt(clip.model, clip.empty_text), clip.tokenizer, gate.check_encode_prompt)


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


def seldom(say: Say, what: str) -> Say:
    """Passes on the news of a long step; of a short one there is none."""
    told = time.monotonic()

    def news(step: str) -> None:
        nonlocal told
        if time.monotonic() - told >= SECONDS_BETWEEN_NEWS:
            told = time.monotonic()
            say(f"{what}, {step} …")

    return news


def export_leaf(
    leaf: LeafExport, described: dict[str, Any], folder: Path, say: Say = print
) -> tuple[dict[str, Any], dict[str, int]]:
    """One graph, verified, written to ``folder/model.onnx``. Returns its manifest entry and its symbols' numbers."""
    from export.compact import compact
    from export.graph import OPSET, check_contract, drop_outputs, export_graph, set_metadata

    spec = LEAVES[leaf.name]
    probed = ModelSpec(spec.inputs, spec.outputs + leaf.probes)
    module = with_policy(leaf.module, leaf.half) if leaf.half else leaf.module
    say(f"{leaf.name}: tracing …")
    model = compact(export_graph(module, list(leaf.inputs.values()), probed))
    del module
    say(f"{leaf.name}: running PyTorch …")
    wanted = truth_of(leaf)
    say(f"{leaf.name}: verifying …")
    inputs = {name: value.numpy() for name, value in leaf.inputs.items()}
    figures = gate.verify(model, probed, inputs, wanted, leaf.judge, seldom(say, f"{leaf.name}: verifying"))
    drop_outputs(model, [probe.name for probe in leaf.probes])
    metadata = {
        "leaf": leaf.name,
        "detector": described["detector"],
        "encoder": described["encoder"],
        "settings": described["settings"],
        "opset": OPSET,
        "parity": figures,
        "libraries": libraries(),
    }
    set_metadata(model, metadata)
    content = model.SerializeToString(deterministic=True)
    folder.mkdir()
    (folder / "model.onnx").write_bytes(content)
    entry = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "nodes": len(model.graph.node),
        "opset": OPSET,
        "parity": figures,
    }
    return entry, check_contract(model, spec)


def compile_leaf(leaf: LeafExport, folder: Path, limits: Limits, compiler: Compiler, say: Say) -> dict[str, Any]:
    """Turns the verified ``folder/model.onnx`` into ``folder/model.plan``. Returns what changes in its manifest entry.

    The plan passes the same gate as the graph, unless it was built for a GPU that is not here: then ``plan.parity``
    says that it was not run, and the figures are the graph's.
    """
    spec, graph = LEAVES[leaf.name], folder / "model.onnx"
    content = graph.read_bytes()
    plan = compile_graph(content, leaf.name, spec, limits, compiler, say)
    entry: dict[str, Any] = {
        "file": PLAN,
        "sha256": hashlib.sha256(plan.content).hexdigest(),
        "bytes": len(plan.content),
        "plan": {
            "builder": compiler.label,
            "onnx_sha256": hashlib.sha256(content).hexdigest(),
            "tensors": plan.tensors,
            "layers": plan.layers,
            "parity": "not run" if compiler.capability else "verified",
        },
    }
    if not compiler.capability:
        engine = Engine(compiler.trt, leaf.name, spec, plan)
        inputs = {name: value.numpy() for name, value in leaf.inputs.items()}

        def run(rows: Sequence[int]) -> dict[str, Any]:
            return engine({name: value[list(rows)] for name, value in inputs.items()})

        entry["parity"] = gate.compare(run, inputs, truth_of(leaf), leaf.judge)
    (folder / PLAN).write_bytes(plan.content)
    graph.unlink()
    return entry


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


def export_tokenizer(leaf: str, original: Any, folder: Path) -> dict[str, Any]:
    """One tokenizer file, verified, written to ``folder/tokenizer.json``. Returns its manifest entry."""
    from tokenizers import Tokenizer

    from export.phrases import PhraseTokenizer
    from export.tokenizer import build_tokenizer

    built = original.build() if isinstance(original, PhraseTokenizer) else build_tokenizer(original)
    written = built.to_str()
    figures = gate.check_tokenizer(leaf, Tokenizer.from_str(written), original, examples.TEXTS)
    folder.mkdir()
    (folder / "tokenizer.json").write_text(written, encoding="utf-8")
    content = written.encode()
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "parity": figures,
    }


def libraries() -> dict[str, str]:
    return {
        name: version_of(name)
        for name in ("torch", "onnx", "onnxruntime", "open_clip_torch", "transformers", "ultralytics")
    }


def code_sha256() -> str:
    """Of this package, so that a change of the export code exports again."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
