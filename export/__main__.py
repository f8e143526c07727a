"""``python -m export``: see ``--help``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from export import calibrate
from export.errors import ExportError
from export.place import serve_version
from export.progress import progress
from export.sources import MINI_THRESHOLD, THRESHOLD
from serving.errors import ServingError
from serving.repository.manifest import read_manifests, read_served
from serving.repository.versions import PARTS

HELP = """\
Export weights to verified ONNX graphs or TensorRT plans in a Triton model repository.

  python -m export --detector mini --encoder mini
      the mini models of weights/mini

  python -m export --detector yolo-world-s --encoder ViT-B-32 --pretrained laion2b_s34b_b79k
      published weights, which the libraries download

  python -m export --detector best.pt --encoder runs/my-clip --threshold 0.1
      your own weights: an ultralytics YOLO-World checkpoint, and a folder with open_clip_config.json
      and open_clip_model.safetensors

  python -m export --detector grounding-dino-tiny --detector-weights runs/dino --encoder mini
      Grounding DINO, whose code and weights are Apache-2.0, from the hub or from a folder with model and
      tokenizer written by transformers' save_pretrained; a prompt is one phrase

  python -m export --detector yolo-world-s --encoder ViT-B-32 --random-weights --out /tmp/repository
      the true architectures with random weights, for tests

  python -m export --detector yolo-world-s --encoder ViT-B-16-SigLIP --pretrained webli --checkpoint tuned.pt \\
                   --tokenizer siglip-tokenizer
      fine-tuned weights with the preprocessing of webli; the tokenizer comes from a folder, not from the hub

  python -m export --detector yolo-world-s --encoder ViT-B-32 --pretrained openai --checkpoint tuned.pt
      weights that were tuned from openai's: with their preprocessing and their activation, QuickGELU

  python -m export --detector best.pt --encoder ViT-B-32 --version 7
      as version 7 and not the next free number; a running server switches to it without dropping a request

  python -m export --detector best.pt --encoder ViT-B-32 --stage
      a version that is not served until `python -m benchmarks.canary --version 2 --promote` has compared
      the two

  python -m export --detector best.pt --encoder ViT-B-32 --precision fp16
      FP16 for GPUs where it is safe: the cosine with FP32 must be 0.9995 on average and at least 0.995

  python -m export --detector best.pt --encoder ViT-B-32 --precision fp16 --format tensorrt
      TensorRT plans: run this on the GPU and with the TensorRT version that will serve them, for example in
      nvcr.io/nvidia/tensorrt:YY.MM-py3 of the same release as your tritonserver

Other commands:

  python -m export use --version 1   serve this version; running servers switch to it
  python -m export show              list the versions of the repository, with their parity figures
  python -m export calibrate         choose the threshold from your own photos (calibrate --help)
  python -m export pack-mini         export the mini models and pack them for git (weights/mini/graphs)
  python -m export.install           install the packed mini models into the repository, without torch

Every graph is compared with PyTorch, PIL and open_clip before anything is placed. If a comparison fails, or a file is
missing or damaged, the repository does not change. ultralytics' code and weights are AGPL-3.0.
"""
INTERRUPTED = 130
MINI = (
    "mini is a demonstration model: it knows 61 of the 66 drawn product types of training/catalogue, and no real photo"
)

COMMANDS = {
    "models": "export models (the default)",
    "use": "serve another version",
    "show": "list the versions of the repository",
    "calibrate": "choose the threshold from your own photos",
    "pack-mini": "export the mini models and pack them for git",
}


def version_number(text: str) -> int:
    """For argparse: Triton's versions are numbers from 1 on."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected the number of a version, 1 or more, got {text!r}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Each command takes its own options and refuses those of the others."""
    usage = f"python -m export [{' | '.join(COMMANDS)}] [option …]"
    main = argparse.ArgumentParser(prog="python -m export", usage=usage)
    added = main.add_subparsers(prog=main.prog, dest="command", required=True, metavar="command")
    models, use, show, calibrated, pack = (added.add_parser(name, help=help) for name, help in COMMANDS.items())
    models.usage, models.description, models.formatter_class = usage, HELP, argparse.RawDescriptionHelpFormatter
    for command in (models, use, show, calibrated):
        command.add_argument(
            "--out", type=Path, default=Path("model_repository"), help="model repository (%(default)s)"
        )
    for command in (models, pack):
        command.add_argument(
            "--threshold",
            type=float,
            help=f"score below which the whole image is used ({THRESHOLD}; {MINI_THRESHOLD} for the mini detector)",
        )
    calibrate.add_options(calibrated)
    use.add_argument("--version", type=version_number, required=True, metavar="N", help="version to serve")

    add = models.add_argument
    numbers = "version to write (the one that holds this export, else the next free number)"
    add("--version", type=version_number, metavar="N", help=numbers)
    add("--stage", action="store_true", help="keep serving the current version until the new one is promoted")
    add("--force", action="store_true", help="export even if the repository holds this version, and overwrite it")
    detectors = "mini, yolo-world-s|m|l|x, grounding-dino-tiny|base, or a .pt file (%(default)s)"
    add("--detector", default="mini", help=detectors)
    add("--detector-weights", metavar="PATH", help="weights of a named detector: a file; for Grounding DINO a folder")
    add("--detector-size", type=int, metavar="PIXELS", help="side of the detector's input (as in training)")
    add("--encoder", default="mini", help="mini, any open_clip model, or a folder (%(default)s)")
    add("--pretrained", metavar="TAG", help="open_clip's tag of weights; with --checkpoint, of those it was tuned from")
    add("--checkpoint", metavar="FILE", help="weights of the encoder")
    add("--activation", choices=["gelu", "quickgelu"], help="activation of a --checkpoint without --pretrained")
    add("--tokenizer", metavar="FOLDER", help="folder with tokenizer.json and its configuration, in place of the hub")
    add("--prompt-encoder", metavar="NAME", help="model whose text tower encodes prompts (the detector's)")
    add("--random-weights", action="store_true", help="random weights for named models without weights")
    precisions = "fp16: for GPUs, at least twice as fast; inputs and outputs stay FP32 (%(default)s)"
    add("--precision", choices=["fp32", "fp16"], default="fp32", help=precisions)
    add("--format", choices=["onnx", "tensorrt"], default="onnx", help="format of the graphs (%(default)s)")
    return main


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command's options. Without a command they are those of ``models``."""
    return parser().parse_args(["models", *argv] if not argv or argv[0].startswith("-") else argv)


def show(out: Path) -> str:
    """The versions of a repository, with a line for each leaf."""
    lines = []
    for manifest in read_manifests(out):
        settings = manifest.request.settings
        notes = [manifest.models, manifest.date, settings.precision, settings.format]
        served = " (served)" if manifest == read_served(out) else ""
        lines.append(
            f"version {manifest.version}{served}: {', '.join(filter(None, notes))}, "
            f"detector at {manifest.detector_side} px, threshold {settings.threshold}"
        )
        if "mini" in (manifest.request.detector.get("model"), manifest.request.encoder.get("model")):
            lines.append(f"  {MINI}")
        if manifest.calibration:
            lines.append(f"  {manifest.calibration.describe()}")
        lines.append("  " + "  ".join(f"{part} {manifest.digests.get(part, 'unknown')}" for part in PARTS))
        lines.extend(f"  {leaf.describe(name)}" for name, leaf in manifest.leaves.items())
    return "\n".join(lines) or f"{out} holds no export"


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(sys.argv[1:] if argv is None else argv)
    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        return run(arguments)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Replaces ``warnings.showwarning``, whose second line is a line of a library."""
    print(f"export: warning: {message}", file=sys.stderr)


def run(arguments: argparse.Namespace) -> int:
    """Run a command. Returns the exit status."""
    try:
        if arguments.command == "show":
            print(show(arguments.out))
        elif arguments.command == "use":
            manifest = serve_version(arguments.out, arguments.version)
            print(f"{arguments.out} now serves {manifest.label}")
        elif arguments.command == "calibrate":
            calibrate.run(arguments)
        elif arguments.command == "pack-mini":
            pack_mini(arguments)
        else:
            models(arguments)
    except (ExportError, ServingError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("export: interrupted; the repository did not change", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        reason = f"{error.strerror or error} ({error.filename or vars(arguments).get('out', arguments.command)})"
        print(f"export: {reason}; the repository did not change", file=sys.stderr)
        return 1
    return 0


def models(arguments: argparse.Namespace) -> None:
    from export.build import build, make_request

    request = make_request(
        arguments.detector,
        arguments.encoder,
        threshold=arguments.threshold,
        pretrained=arguments.pretrained,
        checkpoint=arguments.checkpoint,
        detector_weights=arguments.detector_weights,
        detector_side=arguments.detector_size,
        prompt_encoder=arguments.prompt_encoder,
        random_weights=arguments.random_weights,
        format=arguments.format,
        tokenizer=arguments.tokenizer,
        precision=arguments.precision,
        activation=arguments.activation,
    )
    with progress() as say:
        build(request, arguments.out, arguments.version, arguments.force, say, stage=arguments.stage)


def pack_mini(arguments: argparse.Namespace) -> None:
    from export.build import build, make_request
    from export.install import ARCHIVE, SHIPPED, pack

    with tempfile.TemporaryDirectory() as folder, progress() as say:
        build(make_request("mini", "mini", threshold=arguments.threshold), Path(folder), say=say)
        size = pack(Path(folder))
    print(f"{SHIPPED / ARCHIVE}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    code = main()
    if code == INTERRUPTED:
        # The usual exit has crashed at times, because threads of libraries were still running.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
