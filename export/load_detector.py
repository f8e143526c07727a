"""Load a detector: YOLO-World with ultralytics, Grounding DINO with transformers.

A further detector needs a name in ``sources.py``, a function here that loads it, and one in ``leaves.py`` that makes
its graph ``detect`` with the tensors of ``serving/repository/specs.py``.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch

from export import examples
from export.errors import SourceError, UnsupportedModel, UsageError, first_line
from export.phrases import character_tokenizer
from export.quiet import quiet_exporters, quiet_ultralytics
from export.sources import CACHE, GROUNDING_DINO, GROUNDING_DINO_SIDE, YOLO_WORLD, YOLO_WORLD_SIDE, DetectorSource

SWIN_WIDTHS = {"grounding-dino-tiny": 96, "grounding-dino-base": 128}
STRIDE = 32
"""The largest stride of both architectures, which must divide the side of the input."""


@dataclass(frozen=True)
class LoadedDetector:
    """A detector, and the side of its square input in pixels."""

    model: Any
    """``ultralytics.nn.tasks.WorldModel`` or ``transformers.GroundingDinoForObjectDetection``"""
    side: int
    tokenizer: Any = None
    """transformers' ``BertTokenizer``, if the detector brings its own prompt encoder."""


def load_detector(source: DetectorSource, side: int | None = None) -> LoadedDetector:
    """The FP32 model in evaluation mode.

    Args:
        side: the side of the input in pixels; by default the one it was trained with.

    Raises:
        SourceError: weights that are missing, damaged or of another architecture.
        UnsupportedModel: a YOLO-World v1.
        UsageError: a side that is not a multiple of 32.
    """
    require_multiple(side or STRIDE)
    loaded = load_grounding_dino(source, side) if source.is_grounding_dino else load_yolo_world(source, side)
    require_multiple(loaded.side)
    return loaded


def require_multiple(side: int) -> None:
    if side % STRIDE:
        raise UsageError(f"the detector's side must be a multiple of {STRIDE}, got {side}")


def load_yolo_world(source: DetectorSource, side: int | None) -> LoadedDetector:
    quiet_ultralytics()
    from ultralytics.nn import tasks

    untyped: Any = tasks
    if source.random:
        torch.manual_seed(0)
        model = untyped.WorldModel(f"{YOLO_WORLD[source.name]}.yaml", verbose=False)
        randomize_yolo_world(model)
        return LoadedDetector(model.eval(), side or YOLO_WORLD_SIDE)
    file = source.file or CACHE / f"{YOLO_WORLD[source.name]}.pt"
    try:
        model, checkpoint = untyped.load_checkpoint(str(file))
    except Exception as error:
        hint = "" if source.file else " (put it there, or give it with --detector-weights FILE)"
        raise SourceError(f"the detector cannot be loaded from {file}{hint}: {first_line(error)}") from error
    if not isinstance(model, untyped.WorldModel):
        raise SourceError(f"{file} holds a {type(model).__name__}, not a YOLO-World")
    if any(type(part).__name__ == "ImagePoolingAttn" for part in model.modules()):
        raise UnsupportedModel(
            f"{file} holds a YOLO-World v1, which cannot be exported, because it changes the prompts with the image: "
            "use a v2, whose published files are named like yolov8s-worldv2.pt"
        )
    scale, asked = (model.yaml or {}).get("scale"), source.name.removeprefix("yolo-world-")
    if source.name in YOLO_WORLD and scale and scale != asked:
        raise SourceError(
            f"{file} holds a YOLO-World {scale.upper()}, not {asked.upper()}: --detector yolo-world-{scale}"
        )
    trained = checkpoint.get("train_args", {}).get("imgsz") or getattr(model, "args", {}).get("imgsz")
    return LoadedDetector(model, side or trained_side(trained))


def trained_side(imgsz: object) -> int:
    """The side for ultralytics' ``imgsz``: the largest of its numbers, rounded up to the stride as in training."""
    sides = [side for side in (imgsz if isinstance(imgsz, (list, tuple)) else [imgsz]) if isinstance(side, int)]
    return -(-max(sides, default=YOLO_WORLD_SIDE) // STRIDE) * STRIDE


def load_grounding_dino(source: DetectorSource, side: int | None) -> LoadedDetector:
    """From the hub, from a folder, or with random weights; with its tokenizer."""
    import transformers

    side = side or GROUNDING_DINO_SIDE
    if source.random:
        torch.manual_seed(0)
        model: Any = transformers.GroundingDinoForObjectDetection(configuration(source.name))
        randomize_grounding_dino(model)
        return LoadedDetector(model.eval(), side, character_tokenizer())
    where = str(source.file or GROUNDING_DINO[source.name])
    try:
        with quiet_exporters():
            config = transformers.AutoConfig.from_pretrained(where)
            if config.model_type != "grounding-dino":
                raise SourceError(f"{where} holds a {config.model_type}, not a Grounding DINO")
            loaded: Any = transformers.GroundingDinoForObjectDetection.from_pretrained(
                where, output_loading_info=True, dtype=torch.float32
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(where)
    except SourceError:
        raise
    except Exception as error:
        hint = "" if source.file else " (or give a folder made by save_pretrained with --detector-weights FOLDER)"
        raise SourceError(f"the detector cannot be loaded from {where}{hint}: {first_line(error)}") from error
    model, report = loaded
    if report["missing_keys"]:
        raise SourceError(f"the weights in {where} lack {sorted(report['missing_keys'])[0]}")
    if report["unexpected_keys"]:
        unused = sorted(report["unexpected_keys"])
        warnings.warn(f"{len(unused)} tensors in {where} belong to no Grounding DINO: {unused[0]}, …", stacklevel=2)
    width = config.backbone_config.embed_dim
    if width in SWIN_WIDTHS.values() and width != SWIN_WIDTHS[source.name]:
        raise SourceError(f"{where} holds a Grounding DINO of another size than {source.name}")
    return LoadedDetector(model.eval(), side, tokenizer)


def configuration(name: str) -> Any:
    """The architecture of a published Grounding DINO, as in its ``config.json``."""
    from transformers import GroundingDinoConfig

    if name == "grounding-dino-tiny":
        return GroundingDinoConfig()
    swin = {
        "model_type": "swin",
        "embed_dim": 128,
        "depths": [2, 2, 18, 2],
        "num_heads": [4, 8, 16, 32],
        "window_size": 12,
        "image_size": 384,
        "out_indices": [2, 3, 4],
    }
    return GroundingDinoConfig(backbone_config=swin)


def randomize_yolo_world(model: Any) -> None:
    """Change new random weights so that the outputs depend on the inputs. Otherwise comparisons would show nothing.

    In a new model, signals fade from layer to layer, and all scores are 5e-5. Here one batch of pictures sets the
    statistics of the normalizations, and the scores spread around one half.
    """
    normalizations = [part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for part in normalizations:
        part.momentum = 1.0
    head = model.model[-1]
    for contrast in head.cv4:
        torch.nn.init.zeros_(contrast.bias)
    with torch.no_grad():
        images = torch.from_numpy(examples.canvases(examples.pictures(), 320)[0]).permute(0, 3, 1, 2) / 255.0
        prompts = torch.randn(len(images), head.nc, head.cv3[0][-1].out_channels)
        model.train().predict(images, txt_feats=prompts)


def randomize_grounding_dino(model: Any) -> None:
    """Change new random weights so that every part of the model contributes to its outputs.

    transformers initializes sampling offsets, attention weights and boxes with zero and the fusion of image and text
    close to zero, and logits grow with the root of the width until every score is 1. A comparison would cover little
    of the graph.
    """
    spread = model.config.d_model**-0.5
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "encoder_output_bbox_embed.layers.0" in name:  # its input is scaled down by enc_output_norm, below
                parameter.add_(torch.randn_like(parameter))
            elif "bbox_embed" in name:  # every layer of the decoder moves its boxes with the same weights: not far
                parameter.add_(torch.randn_like(parameter) * spread / 2)
            elif "sampling_offsets" in name or "attention_weights" in name:
                parameter.add_(torch.randn_like(parameter) * spread)
            elif name.endswith(("vision_param", "text_param")):
                parameter.fill_(0.5)
            elif name.endswith(("enc_output_norm.weight", "decoder.layer_norm.weight")):
                parameter.mul_(spread)
