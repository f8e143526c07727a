"""Draw the synthetic catalogue and train the mini models on it."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from training import data, detector, encoder


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("weights/mini"), help="folder for the trained models")
    parser.add_argument("--work", type=Path, default=Path("build/training"), help="folder for the training set")
    parser.add_argument("--scenes", type=int, default=9000, help="number of scenes to draw")
    parser.add_argument("--seed", type=int, default=1, help="seed of the catalogue")
    parser.add_argument("--encoder-steps", type=int, default=1500, help="steps of 317 crops; 0 skips the encoder")
    parser.add_argument("--detector-steps", type=int, default=2000, help="steps of 12 photos; 0 skips the detector")
    parser.add_argument(
        "--refine-steps",
        type=int,
        nargs="*",
        default=[500, 400, 1900, 2300],
        help="further steps of the detector, in cycles",
    )
    parser.add_argument("--resume", action="store_true", help="continue from the models in --out")
    args = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    catalogue = data.make(args.work, scenes=args.scenes, seed=args.seed)
    if args.encoder_steps:
        encoder.train(
            args.out / "encoder", catalogue, steps=args.encoder_steps, batch=256, device=device, resume=args.resume
        )
    model, tokenizer = encoder.load(args.out / "encoder", device)
    for cycle, steps in enumerate([args.detector_steps, *args.refine_steps]):
        if steps:
            path, first = args.out / "detector.pt", int(args.resume)
            detector.train(path, catalogue, model, tokenizer, steps=steps, batch=12, device=device, cycle=first + cycle)


if __name__ == "__main__":
    main()
