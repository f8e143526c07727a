"""A Grounding DINO of the true structure, small enough for fast tests; and transformers' own way from photo to box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper
from PIL.Image import Image
from torch.overrides import TorchFunctionMode
from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection, GroundingDinoProcessor
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil

from export.examples import canvases
from export.grounding_dino import PROBES
from export.load_detector import randomize_grounding_dino
from export.phrases import PhraseTokenizer

SIDE = 96
LONGEST = 12
"""Tokens of a padded prompt in these tests."""


def make_model(encoder_layers: int = 2) -> Any:
    torch.manual_seed(0)
    config = GroundingDinoConfig(
        backbone_config={
            "model_type": "swin",
            "embed_dim": 16,
            "depths": [1, 1, 2, 1],
            "num_heads": [1, 2, 2, 4],
            "window_size": 4,
            "out_indices": [2, 3, 4],
        },
        text_config=BertConfig(
            vocab_size=1200, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
        ),
        d_model=64,
        encoder_layers=encoder_layers,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_queries=20,
    )
    model: Any = GroundingDinoForObjectDetection(config)
    model.eval()
    randomize_grounding_dino(model)
    return model


class Choose(TorchFunctionMode):
    """Lets a model take the given proposals in place of its own ``topk``, and keeps those that it would have taken.

    Two places of nearly one score change ranks between runtimes, and a query's start depends on its rank.
    """

    def __init__(self, chosen: torch.Tensor):
        super().__init__()
        self.chosen = chosen  # (1, K)
        self.own: torch.Tensor | None = None

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        if function is not torch.topk:
            return made
        self.own = made.values
        return args[0].gather(1, self.chosen), self.chosen


@dataclass(frozen=True)
class Answer:
    """What transformers makes of one image and one phrase."""

    foreground: np.ndarray  # (N,), the best logit of any token at each place
    logits: np.ndarray  # (K, L)
    boxes: np.ndarray  # (K, 4), corners in pixels of the image, clipped to it
    scores: np.ndarray  # (K,)
    lowest: float
    """The lowest foreground that its own choice of proposals has."""


class Upstream:
    """transformers' processor, model and post-processing, for one image and one phrase at a time.

    The published processor brings the shorter side to 800 pixels, unless the longer one would pass 1333: the input's
    shape follows the image, and in a batch the padding follows the company. ``detect`` has one square for all images,
    so that a row does not depend on its neighbours and a plan has one shape. The processor is given the same bounds
    here: longer side to ``side``, padding to the square. Then both see the same pixels, but for what resizing does:
    PIL's fixed point rounds some halves the other way, and at one in twenty sizes the processor cuts 799.999 to 799.
    """

    def __init__(self, model: Any, tokenizer: Any, side: int):
        square: Any = {
            "size": {"shortest_edge": side, "longest_edge": side},
            "pad_size": {"height": side, "width": side},
        }
        processor: Any = GroundingDinoProcessor
        self.processor = processor(GroundingDinoImageProcessorPil(**square), tokenizer)
        self.model = model.eval()

    def __call__(self, image: Image, phrase: str, chosen: np.ndarray) -> Answer:
        inputs = self.processor(images=image, text=f"{phrase}.", return_tensors="pt")
        choose = Choose(torch.from_numpy(chosen)[None])
        with torch.no_grad(), choose:
            made = self.model(**inputs)
        assert choose.own is not None
        (found,) = self.processor.post_process_grounded_object_detection(
            made, inputs["input_ids"], threshold=0.0, target_sizes=[(image.height, image.width)]
        )
        length = inputs["input_ids"].shape[1]
        return Answer(
            foreground=made.enc_outputs_class[0].amax(dim=1).numpy(),
            logits=made.logits[0, :, :length].numpy(),
            boxes=found["boxes"].numpy().clip(0, [image.width, image.height] * 2),
            scores=found["scores"].numpy(),
            lowest=float(choose.own.min()),
        )


def with_probes(graph: Path) -> onnxruntime.InferenceSession:
    """The exported graph itself, its inner values of ``PROBES`` as further outputs."""
    model = onnx.load(graph)
    kinds = {"FP32": TensorProto.FLOAT, "INT64": TensorProto.INT64}
    model.graph.output.extend(helper.make_tensor_value_info(probe.name, kinds[probe.dtype], None) for probe in PROBES)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def compare_with_upstream(
    graphs: Mapping[str, Path], upstream: Upstream, images: Sequence[Image], phrases: list[str]
) -> dict[str, float]:
    """Both exported graphs, for all images and phrases as one batch, against ``upstream``, one by one.

    Args:
        graphs: the files of ``encode_prompt`` and ``detect``.
        images: no larger than 800 pixels.

    Returns:
        the largest differences: raw logits relative to the largest one, scores, boxes in pixels of the image
    """
    canvas, size, _ = canvases(list(images), 800)
    tokenizer = PhraseTokenizer(upstream.processor.tokenizer)
    session = onnxruntime.InferenceSession(graphs["encode_prompt"], providers=["CPUExecutionProvider"])
    prompt, mask = session.run(["PROMPT", "PROMPT_MASK"], {"TOKENS": tokenizer(phrases).numpy()})
    names = ["CANVAS_BOX", "SCORE", *(probe.name for probe in PROBES)]
    given = {"CANVAS": canvas, "SIZE": size, "PROMPT": prompt, "PROMPT_MASK": mask}
    came = dict(zip(names, with_probes(graphs["detect"]).run(names, given), strict=True))

    apart = {"foreground": 0.0, "logits": 0.0, "score": 0.0, "box": 0.0}
    for row, (image, phrase) in enumerate(zip(images, phrases, strict=True)):
        wanted = upstream(image, phrase, came["CHOSEN"][row])
        length = wanted.logits.shape[1]
        assert mask[row].sum() == length
        assert wanted.logits.std() > 0.1, "the random model says nothing"
        assert np.isneginf(came["LOGITS"][row, :, length:]).all()
        assert came["FOREGROUND"][row][came["CHOSEN"][row]].min() >= wanted.lowest - 1e-3, "another choice"
        best = wanted.boxes[wanted.scores >= wanted.scores.max() - 1e-5]
        logits = came["LOGITS"][row, :, :length]
        for name, value in {
            "foreground": np.abs(came["FOREGROUND"][row] - wanted.foreground).max() / np.abs(wanted.foreground).max(),
            "logits": np.abs(logits - wanted.logits).max() / np.abs(wanted.logits).max(),
            "score": abs(float(came["SCORE"][row, 0]) - wanted.scores.max()),
            "box": np.abs(came["CANVAS_BOX"][row] - best).max(axis=1).min(),
        }.items():
            apart[name] = max(apart[name], float(value))
    return apart
