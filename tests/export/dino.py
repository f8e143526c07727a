"""A Grounding DINO of the true structure, small enough for fast tests."""

from __future__ import annotations

from typing import Any

SIDE = 96
LONGEST = 12
"""Tokens of a padded prompt in these tests."""


def make_model(encoder_layers: int = 2) -> Any:
    """Random weights that are alive: transformers starts offsets and box heads at zero, and fusion near it."""
    import torch
    from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection

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
    model = GroundingDinoForObjectDetection(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "sampling_offsets" in name or "attention_weights" in name or "bbox_embed" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            elif name.endswith(("vision_param", "text_param")):
                parameter.fill_(0.5)
            elif "enc_output_norm" in name or name.endswith("decoder.layer_norm.weight"):
                parameter.mul_(0.3)  # scores that are neither 0 nor 1
    return model
