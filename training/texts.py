"""What shoppers call a product type, and texts that name none: the negatives of training and of its evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.catalogue.art import COLOURS
from training.catalogue.items import SHOP_WORDS
from training.catalogue.products import REGISTRY

_LISTS: dict[str, list[str]] = json.loads((Path(__file__).parent / "catalogue/unknown_words.json").read_text())

TRAINING_WORDS = tuple(_LISTS["training"])
EVALUATION_WORDS = tuple(_LISTS["evaluation"])
"""Words that no training step sees. They measure what a model does with words that are new to it."""

KNOWN = frozenset(name for kind in REGISTRY.values() for name in (kind.name, *kind.synonyms))
"""Every name and synonym of every product type, the held-out ones too."""

_PARTS = sorted({part for name in KNOWN for part in name.replace("-", " ").split() if len(part) > 2})
_NEVER = KNOWN | set(_PARTS) | set(EVALUATION_WORDS)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_PREFIXES = ("", "", "", "a ", "the ", "a photo of a ", "one ")


def draw_name(product_type: str, rng: np.random.Generator) -> str:
    """A shopper's word for a product type: usually its name, otherwise a synonym. One in ten is in the plural."""
    synonyms = REGISTRY[product_type].synonyms
    name = product_type if rng.random() < 0.75 or not synonyms else str(rng.choice(synonyms))
    return _plural(name) if rng.random() < 0.1 else name


def draw_unknown(rng: np.random.Generator) -> str:
    """A text about something that the catalogue does not have: a word of the list, or a word that does not exist."""
    while True:
        choice = rng.random()
        if choice < 0.4:
            word = _pick(rng, TRAINING_WORDS)
        elif choice < 0.5:
            word = "".join(_pick(rng, _LETTERS) for _ in range(rng.integers(1, 10)))
        elif choice < 0.7:
            word = "".join(
                "".join(_pick(rng, _LISTS[part]) for part in ("onsets", "vowels", "codas"))
                for _ in range(rng.integers(1, 4))
            )
        elif choice < 0.9:
            word = _splice(_pick(rng, TRAINING_WORDS), _pick(rng, TRAINING_WORDS), rng)
        else:
            pair = (_pick(rng, _PARTS), _pick(rng, TRAINING_WORDS))
            word = _splice(*(pair if rng.random() < 0.5 else pair[::-1]), rng)
        if word in _NEVER:
            continue
        if rng.random() < 0.15:
            word = f"{_pick(rng, tuple(COLOURS))} {word}"
        return _pick(rng, _PREFIXES) + word


def draw_attributes(rng: np.random.Generator) -> str:
    """One to three words that describe a product without naming it: ``red striped``."""
    kinds: list[Sequence[str]] = [
        tuple(COLOURS),
        [word for words in SHOP_WORDS["patterns"].values() for word in words],
        SHOP_WORDS["audiences"],
        [material for kind in REGISTRY.values() for material in kind.materials],
        [*SHOP_WORDS["marketing"], *SHOP_WORDS["brands"]],
    ]
    chosen = rng.choice(len(kinds), int(rng.integers(1, 4)), replace=False, p=(0.35, 0.3, 0.1, 0.15, 0.1))
    return _pick(rng, ("", "", "", "a ", "the ")) + " ".join(_pick(rng, kinds[kind]) for kind in chosen)


def _plural(name: str) -> str:
    if name.endswith(("ss", "x", "ch", "sh")):
        return name + "es"
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name if name.endswith("s") else name + "s"


def _splice(first: str, second: str, rng: np.random.Generator) -> str:
    """The beginning of one word and the end of another."""
    return first[: int(rng.integers(1, len(first)))] + second[-int(rng.integers(1, len(second))) :]


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
