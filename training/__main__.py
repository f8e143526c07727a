"""``python -m training``: draw the catalogue and train the mini models on it."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from training import data, detector, encoder


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("weights/mini"), help="where the models go (%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("build/training"), help="the training set (%(default)s)")
    parser.add_argument("--scenes", type=int, default=9000, help="photos to draw (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the catalogue (%(default)s)")
    parser.add_argument(
        "--encoder-steps", type=int, default=1500, help="of 317 crops each; 0 keeps the encoder (%(default)s)"
    )
    parser.add_argument(
        "--detector-steps", type=int, default=3000, help="of 16 photos each; 0 keeps the detector (%(default)s)"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the models in --out instead of from scratch")
    args = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    catalogue = data.make(args.work, scenes=args.scenes, seed=args.seed)
    if args.encoder_steps:
        encoder.train(
            args.out / "encoder", catalogue, steps=args.encoder_steps, batch=256, device=device, resume=args.resume
        )
    if args.detector_steps:
        model, tokenizer = encoder.load(args.out / "encoder", device)
        path = args.out / "detector.pt"
        detector.train(
            path, catalogue, model, tokenizer, steps=args.detector_steps, batch=16, device=device, resume=args.resume
        )


if __name__ == "__main__":
    main()
