"""Export from weights to verified artefacts in the model repository: trace, clean, compact, verify, place."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

import open_clip
from tokenizers import Tokenizer

from export import examples, gate
from export.compact import compact
from export.digests import digests_of
from export.encoder_sources import DEFAULT_PRETRAINED, Activation, has_own_weights, resolve_encoder
from export.encoders import EncodePrompt, require_one_file, text_weights
from export.engine import Engine
from export.errors import UsageError
from export.graph import OPSET, check_contract, drop_outputs, export_graph, set_metadata
from export.grounding_dino import EncodeDinoPrompt
from export.leaves import LeafExport, PromptEncoder, leaves_of
from export.load_detector import LoadedDetector, load_detector
from export.load_encoder import Encoder, load_encoder
from export.phrases import PhraseTokenizer
from export.place import (
    choose_version,
    copy_handwritten,
    next_steps,
    put_in_place,
    require_another_served,
    require_free,
    serve_version,
    staging,
)
from export.precision import with_policy
from export.progress import Say, throttled
from export.quiet import quiet_ultralytics
from export.sources import (
    MINI_THRESHOLD,
    THRESHOLD,
    YOLO_WORLD_TEXT,
    DetectorSource,
    EncoderSource,
    resolve_detector,
)
from export.stamp import stamp
from export.tensorrt import PLAN, Compiler, Limits, compile_graph, find_compiler, limits_of
from export.tokenizer import build_tokenizer
from serving.repository.manifest import Leaf, Manifest, Plan, Request, Settings, manifest_path, read_served
from serving.repository.specs import LEAVES, ModelSpec
from serving.repository.versions import given_by


@dataclass(frozen=True)
class ExportRequest:
    """Everything that decides what the artefacts are."""

    detector: DetectorSource
    encoder: EncoderSource
    prompt_encoder: EncoderSource | None
    """``None`` if the detector brings its own."""
    settings: Settings

    def describe(self) -> Request:
        return Request(
            detector=self.detector.describe(),
            encoder=self.encoder.describe(),
            prompt_encoder=self.prompt_encoder.describe() if self.prompt_encoder else None,
            settings=self.settings,
            code=code_sha256(),
        )


def make_request(
    detector: str,
    encoder: str,
    *,
    threshold: float | None = None,
    pretrained: str | None = None,
    checkpoint: str | None = None,
    detector_weights: str | None = None,
    detector_side: int | None = None,
    prompt_encoder: str | None = None,
    random_weights: bool = False,
    format: str = "onnx",
    tokenizer: str | None = None,
    precision: str = "fp32",
    activation: Activation | None = None,
) -> ExportRequest:
    """The request for what the user typed. Mistakes are found before anything is loaded.

    ``threshold``: if it is None, the one that suits the mini detector, or ``THRESHOLD`` for any other.

    Raises:
        UsageError: the options are wrong or contradict each other.
        SourceError: a file is missing.
    """
    if threshold is None:
        threshold = MINI_THRESHOLD if detector == "mini" else THRESHOLD
    if not 0.0 <= threshold <= 1.0:
        raise UsageError(f"the threshold must be between 0 and 1, got {threshold}")
    random_detector = random_weights and not (detector_weights or detector == "mini" or detector.endswith(".pt"))
    random_encoder = random_weights and not has_own_weights(encoder, checkpoint)
    if random_weights and not (random_detector or random_encoder):
        raise UsageError("the detector and the encoder have weights of their own: leave out --random-weights")
    detector_source = resolve_detector(detector, detector_weights, random_detector)
    encoder_source = resolve_encoder(encoder, pretrained, checkpoint, random_encoder, tokenizer, activation)
    prompt_source: EncoderSource | None
    if detector_source.is_grounding_dino:
        if prompt_encoder:
            raise UsageError(f"{detector} brings its own prompt encoder: leave out --prompt-encoder")
        prompt_source = None
    elif prompt_encoder:
        prompt_source = resolve_prompt_encoder(prompt_encoder, random_weights)
    elif detector == "mini":
        prompt_source = resolve_encoder("mini")
    else:
        name, tag = YOLO_WORLD_TEXT
        prompt_source = resolve_encoder(name, tag, random=random_weights)
    settings = Settings(threshold, detector_side, precision, format)
    return ExportRequest(detector_source, encoder_source, prompt_source, settings)


def resolve_prompt_encoder(name: str, random_weights: bool) -> EncoderSource:
    """The source of a prompt encoder, which has no options for weights."""
    random = random_weights and not has_own_weights(name)
    if not (random or has_own_weights(name) or name in DEFAULT_PRETRAINED or name not in open_clip.list_models()):
        raise UsageError(
            f"--prompt-encoder {name} names no weights: expected mini, {', '.join(DEFAULT_PRETRAINED)}, or a folder "
            "with open_clip_config.json and weights"
        )
    return resolve_encoder(name, random=random)


def build(
    request: ExportRequest,
    out: Path,
    version: int | None = None,
    force: bool = False,
    say: Say = print,
    compiler: Compiler | None = None,
    stage: bool = False,
) -> Manifest:
    """Export, verify and place every artefact. The repository changes only if all of them pass.

    Args:
        out: the model repository.
        version: the version to write; by default the one that holds this export, else the next free number.
        force: export again even if the repository already holds this export, and overwrite another one.
        compiler: builds the plans of ``format="tensorrt"``. By default it is TensorRT for this machine's GPU.
        stage: keep serving the version that is served.

    Raises:
        ExportError: in one sentence; the repository did not change.
        RepositoryError: the version cannot be staged, it holds another export, or another export is running.
    """
    described = request.describe()
    version = choose_version(out, described) if version is None else version
    if stage:
        require_another_served(out, version)
    present = Manifest.read(manifest_path(out, version))
    if present and not force and present.request == described and present.is_complete(out):
        if stage or read_served(out) == present:
            say(f"{out} already holds this export as version {version}; nothing to do (--force exports again)")
            for line in next_steps(out, version) if stage else ():
                say(line)
        else:
            serve_version(out, version)
            say(f"{out} already holds this export as version {version}, which is now the one that is served")
        return present
    if not force:
        require_free(out, version)

    if request.settings.format == "tensorrt":
        compiler = compiler or find_compiler()
    quiet_ultralytics()
    with staging(out) as staged:
        say(f"loading the detector {request.detector.name} …")
        detector = load_detector(request.detector, request.settings.detector_side)
        say(f"loading the encoder {request.encoder.label} …")
        encoder = load_encoder(request.encoder)
        say("loading the prompt encoder …")
        prompts = load_prompt_encoder(request, detector, encoder)
        leaves: dict[str, Leaf] = {}
        symbols: dict[str, dict[str, int]] = {}
        begin = time.perf_counter()

        def done(name: str, entry: Leaf) -> None:
            nonlocal begin
            leaves[name] = entry
            say(f"{time.perf_counter() - begin:5.1f} s  {entry.describe(name)}")
            begin = time.perf_counter()

        for name, tokenizer in (("tokenize", encoder.tokenizer), ("tokenize_prompt", prompts.tokenizer)):
            done(name, export_tokenizer(name, tokenizer, staged / name))
        tokenizers = {name: entry.sha256 for name, entry in leaves.items()}
        digests = digests_of(encoder, detector, prompts, request.settings.threshold, tokenizers)
        say("running PyTorch on the examples …")
        for leaf in with_versions(leaves_of(request.settings, detector, encoder, prompts), digests):
            entry, symbols[leaf.name] = export_leaf(leaf, described, staged / leaf.name, say)
            if compiler and request.settings.format == "tensorrt":
                say(f"{leaf.name}: compiling …")
                entry = compile_leaf(leaf, entry, staged / leaf.name, limits_of(out, leaf.name), compiler, say)
            done(leaf.name, entry)
        manifest = Manifest(
            version=version,
            request=described,
            leaves=leaves,
            detector_side=detector.side,
            preprocessing=encoder.preprocessing.to_dict(),
            symbols=symbols,
            libraries=libraries(),
            digests=digests,
            date=datetime.now(timezone.utc).date().isoformat(),
        )
        copy_handwritten(staged, out)
        put_in_place(staged, out, manifest, serve=not stage)
    say(f"{out} now holds {'' if stage else 'and serves '}{manifest.label}")
    for line in next_steps(out, version) if stage else ():
        say(line)
    return manifest


def load_prompt_encoder(request: ExportRequest, detector: LoadedDetector, encoder: Encoder) -> PromptEncoder:
    """The detector's own prompt encoder, or the text tower of a CLIP, which may be the encoder's."""
    if request.prompt_encoder is None:
        tokenizer = PhraseTokenizer(detector.tokenizer)
        return PromptEncoder(EncodeDinoPrompt(detector.model), tokenizer, gate.check_encode_phrase)

    shared = request.prompt_encoder == request.encoder
    clip = encoder if shared else load_encoder(request.prompt_encoder, for_prompts=True)
    require_one_file("encode_prompt", text_weights(clip.model))
    return PromptEncoder(EncodePrompt(clip.model, clip.empty_text), clip.tokenizer, gate.check_encode_prompt)


def with_versions(leaves: Iterable[LeafExport], digests: Mapping[str, str]) -> Iterator[LeafExport]:
    """Each leaf with the versions that its graph gives."""
    return (replace(leaf, versions=given_by(leaf.name, digests)) for leaf in leaves)


def export_leaf(leaf: LeafExport, request: Request, folder: Path, say: Say = print) -> tuple[Leaf, dict[str, int]]:
    """Export one verified graph to ``folder/model.onnx``. Returns its manifest entry and its symbols' numbers."""
    spec = LEAVES[leaf.name]
    module = with_policy(leaf.module, leaf.half) if leaf.half else leaf.module
    say(f"{leaf.name}: tracing …")
    model = stamp(compact(export_graph(module, list(leaf.cases[0].inputs.values()), leaf.traced)), leaf.versions)
    del module
    say(f"{leaf.name}: verifying …")
    probed = ModelSpec(spec.inputs, spec.outputs + leaf.probes)
    figures = leaf.verify(gate.run_graph(model, probed), throttled(say, f"{leaf.name}: verifying"))
    drop_outputs(model, [probe.name for probe in leaf.probes])
    metadata = {
        "leaf": leaf.name,
        "detector": request.detector,
        "encoder": request.encoder,
        "settings": asdict(request.settings),
        "opset": OPSET,
        "parity": figures,
        "libraries": libraries(),
    }
    set_metadata(model, metadata)
    content = model.SerializeToString(deterministic=True)
    folder.mkdir()
    (folder / "model.onnx").write_bytes(content)
    entry = describe_file("model.onnx", content, figures)
    return replace(entry, nodes=len(model.graph.node), opset=OPSET), check_contract(model, spec)


def compile_leaf(leaf: LeafExport, entry: Leaf, folder: Path, limits: Limits, compiler: Compiler, say: Say) -> Leaf:
    """Replace the verified ``folder/model.onnx`` by ``folder/model.plan``. Returns its manifest entry.

    The plan passes the same gate as the graph, unless it was built for a GPU that this machine does not have: then
    ``plan.parity`` says that it was not run, and the figures are the graph's.
    """
    spec, graph = LEAVES[leaf.name], folder / "model.onnx"
    plan = compile_graph(graph.read_bytes(), leaf.name, spec, limits, compiler, say)
    figures = entry.parity
    if not compiler.capability:
        figures = leaf.verify(Engine(compiler.trt, leaf.name, spec, plan))
    (folder / PLAN).write_bytes(plan.content)
    graph.unlink()
    return replace(
        describe_file(PLAN, plan.content, figures),
        nodes=entry.nodes,
        opset=entry.opset,
        plan=Plan(
            builder=compiler.label,
            onnx_sha256=entry.sha256,
            tensors=plan.tensors,
            layers=plan.layers,
            parity="not run" if compiler.capability else "verified",
        ),
    )


def export_tokenizer(leaf: str, original: Any, folder: Path) -> Leaf:
    """Export one verified tokenizer to ``folder/tokenizer.json``. Returns its manifest entry."""
    built = original.build() if isinstance(original, PhraseTokenizer) else build_tokenizer(original)
    content = built.to_str()
    figures = gate.check_tokenizer(leaf, Tokenizer.from_str(content), original, examples.TEXTS)
    folder.mkdir()
    (folder / "tokenizer.json").write_text(content, encoding="utf-8")
    return describe_file("tokenizer.json", content.encode(), figures)


def describe_file(name: str, content: bytes, parity: Mapping[str, float]) -> Leaf:
    return Leaf(hashlib.sha256(content).hexdigest(), len(content), parity, name)


def libraries() -> dict[str, str]:
    return {
        name: library_version(name)
        for name in ("torch", "onnx", "onnxruntime", "open_clip_torch", "transformers", "ultralytics")
    }


def code_sha256() -> str:
    """The hash of this package. A change of the export code exports again."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
