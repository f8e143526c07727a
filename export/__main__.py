"""``python -m export``: see ``--help``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from export.errors import ExportError
from export.place import serve_version
from export.progress import Progress
from serving.errors import RepositoryError
from serving.repository.manifest import read_manifests, read_served

TEACHING = """\
Weights to verified ONNX graphs, or TensorRT plans, in a Triton model repository.

  python -m export --detector mini --encoder mini
      the mini models of weights/mini, by the very code that exports large ones

  python -m export --detector yolo-world-s --encoder ViT-B-32 --pretrained laion2b_s34b_b79k
      published weights, fetched by the libraries' own loaders

  python -m export --detector best.pt --encoder runs/my-clip --threshold 0.1
      your own: an ultralytics YOLO-World checkpoint, and a folder with open_clip_config.json
      and open_clip_model.safetensors

  python -m export --detector grounding-dino-tiny --detector-weights runs/dino --encoder mini
      Grounding DINO, whose code and weights are Apache-2.0: from the hub, or a folder of transformers'
      save_pretrained with model and tokenizer; a prompt is one phrase

  python -m export --detector yolo-world-s --encoder ViT-B-32 --random-weights --out /tmp/repository
      the true architectures without weights, for trying and for tests

  python -m export --detector yolo-world-s --encoder ViT-B-16-SigLIP --pretrained webli --checkpoint tuned.pt \\
                   --tokenizer siglip-tokenizer
      fine-tuned weights, images prepared as for webli, and the tokenizer of a folder, where the hub is out of reach

  python -m export --detector best.pt --encoder ViT-B-32 --version 2
      beside version 1; a running server changes over to it without dropping a request

  python -m export --detector best.pt --encoder ViT-B-32 --version 2 --stage
      beside version 1, which stays the one that is served until `python -m benchmarks.canary --version 2 --promote`
      has compared the two

  python -m export --detector best.pt --encoder ViT-B-32 --precision fp16
      computes in FP16 where that is safe, for GPUs: the cosine with FP32 is 0.9995 in the mean and 0.995 at least,
      with every tensor rounded, or nothing is put into place

  python -m export --detector best.pt --encoder ViT-B-32 --precision fp16 --format tensorrt
      TensorRT plans instead of ONNX graphs: on the GPU and with the TensorRT version that will serve them, as in
      nvcr.io/nvidia/tensorrt:YY.MM-py3 of the release of your tritonserver; each passes the same comparisons

Other commands:

  python -m export use --version 1
                               serves that version, running servers included
  python -m export show        what the repository holds, and how near it is to PyTorch
  python -m export pack-mini   exports the mini models and packs them for git (weights/mini/graphs)
  python -m export.install     the packed mini models into the repository; needs no torch

Every graph is compared with PyTorch, PIL and open_clip before anything is put into place. If one differs, or a
file is missing or damaged, the repository stays as it was. ultralytics' code and weights are AGPL-3.0.
"""


INTERRUPTED = 130


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(
        prog="python -m export",
        usage="python -m export [models | use | show | pack-mini] [option …]",
        description=TEACHING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    main.add_argument(
        "command", nargs="?", choices=["models", "use", "show", "pack-mini"], default="models", help="default: models"
    )
    main.add_argument("--out", type=Path, default=Path("model_repository"), help="the model repository (%(default)s)")
    main.add_argument("--version", type=int, default=1, help="the version folder (%(default)s)")
    main.add_argument(
        "--stage", action="store_true", help="leave the version that is served as it is, until the new one is promoted"
    )
    main.add_argument("--force", action="store_true", help="export again what is there already")

    models = main.add_argument_group("models")
    models.add_argument(
        "--detector",
        default="mini",
        help="mini, yolo-world-s|m|l|x, grounding-dino-tiny|base, or a .pt file (%(default)s)",
    )
    models.add_argument(
        "--detector-weights",
        metavar="PATH",
        help="a checkpoint for a named detector: a file, or a folder for Grounding DINO",
    )
    models.add_argument("--detector-size", type=int, metavar="PIXELS", help="side of its input (as it was trained)")
    models.add_argument("--encoder", default="mini", help="mini, any open_clip model, or a folder (%(default)s)")
    models.add_argument(
        "--pretrained",
        metavar="TAG",
        help="open_clip's name of the weights; beside --checkpoint, of their preprocessing",
    )
    models.add_argument("--checkpoint", metavar="PATH", help="the encoder's weights: a file, or a folder")
    models.add_argument("--tokenizer", metavar="FOLDER", help="tokenizer.json and its configuration, not from the hub")
    models.add_argument(
        "--prompt-encoder", metavar="NAME", help="whose text tower encodes prompts (the one the detector grew up with)"
    )
    models.add_argument("--random-weights", action="store_true", help="true architecture, no weights")
    models.add_argument(
        "--threshold", type=float, default=0.2, help="below this score the whole image is taken (%(default)s)"
    )
    models.add_argument(
        "--precision",
        choices=["fp32", "fp16"],
        default="fp32",
        help="fp16: for GPUs, twice as fast or better; inputs and outputs stay FP32 (%(default)s)",
    )
    models.add_argument(
        "--format", choices=["onnx", "tensorrt"], default="onnx", help="what Triton's backends load (%(default)s)"
    )
    return main


def show(out: Path) -> str:
    """The manifests of a repository as a table."""
    lines = []
    for manifest in read_manifests(out):
        settings = manifest.request.settings
        served = " (served)" if manifest == read_served(out) else ""
        lines.append(
            f"version {manifest.version}{served}: {manifest.models}, {settings.precision}, {settings.format}, "
            f"detector at {manifest.detector_side} px, threshold {settings.threshold}"
        )
        lines.extend(f"  {leaf.describe(name)}" for name, leaf in manifest.leaves.items())
    return "\n".join(lines) or f"{out} holds no export"


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        if arguments.command == "show":
            print(show(arguments.out))
        elif arguments.command == "use":
            manifest = serve_version(arguments.out, arguments.version)
            print(f"{arguments.out} now serves version {arguments.version}: {manifest.models}")
        elif arguments.command == "pack-mini":
            pack_mini(arguments)
        else:
            models(arguments)
    except (ExportError, RepositoryError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("export: interrupted; the repository is as it was", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        told = f"{error.strerror or error} ({error.filename or arguments.out})"
        print(f"export: {told}; the repository is as it was", file=sys.stderr)
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
    )
    with Progress() as say:
        build(request, arguments.out, arguments.version, arguments.force, say, stage=arguments.stage)


def pack_mini(arguments: argparse.Namespace) -> None:
    from export.build import build, make_request
    from export.install import ARCHIVE, SHIPPED, pack

    with tempfile.TemporaryDirectory() as folder, Progress() as say:
        build(make_request("mini", "mini", threshold=arguments.threshold), Path(folder), say=say)
        size = pack(Path(folder))
    print(f"{SHIPPED / ARCHIVE}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    code = main()
    if code == INTERRUPTED:
        # Ending as usual has crashed now and then, on libraries' threads that were still at work.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
