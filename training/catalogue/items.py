"""Items of the catalogue: their attributes, a clean caption, and the noisy texts that a shop would write."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from training.catalogue.art import COLOURS, PATTERNS, Art
from training.catalogue.products import REGISTRY

HELD_OUT_TYPES = ("table lamp", "rain boot", "alarm clock", "cooking pot", "toy boat")
"""Types that no model is trained on. Each shares a word with a trained type, so that a small model has a clue."""

TRAINED_TYPES = tuple(sorted(set(REGISTRY) - set(HELD_OUT_TYPES)))

SHOP_WORDS: dict[str, Any] = json.loads(Path(__file__).with_name("shop_words.json").read_text())


@dataclass(frozen=True)
class Item:
    """One product: its type, its attributes, and the seed of its remaining details, such as its exact shape."""

    product_type: str
    colour: str
    pattern: str
    material: str
    audience: str
    seed: int

    @property
    def caption(self) -> str:
        """The shortest description: ``a red striped mug``. A plain item has no word for its pattern."""
        words = [self.colour, *([self.pattern] if self.pattern != "plain" else []), self.product_type]
        return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"

    @cached_property
    def title(self) -> str:
        """A shop's title: attributes in random order, mixed with a synonym, a brand and marketing words."""
        rng = self._rng("title")
        kind = REGISTRY[self.product_type]
        words = [self.colour.title(), str(rng.choice(SHOP_WORDS["patterns"][self.pattern])).title(), self.material.title(),
                 f"for {self.audience.title()}", str(rng.choice(SHOP_WORDS["marketing"])), kind.name.title()]  # fmt: skip
        if kind.synonyms:
            words.append(str(rng.choice(kind.synonyms)).title())
        rng.shuffle(words)
        brand = str(rng.choice(SHOP_WORDS["brands"]))
        return " ".join([brand, *words[: int(rng.integers(4, len(words) + 1))], kind.department])

    @cached_property
    def description(self) -> str:
        """A shop's description: praise, irrelevant facts, other colours on offer, and a few words about the item."""
        rng = self._rng("description")
        others = rng.choice([c for c in COLOURS if c != self.colour], 3, replace=False)
        sentences = [
            f"This {self.material} {self.product_type} comes in {self.colour}.",
            f"{str(rng.choice(SHOP_WORDS['patterns'][self.pattern])).capitalize()} design.",
            f"Also available in {', '.join(others)}.",
            *rng.choice(SHOP_WORDS["praise"], 2, replace=False),
            *rng.choice(SHOP_WORDS["facts"], 2, replace=False),
        ]
        rng.shuffle(sentences)
        return " ".join(sentences).format(number=self.seed % 1_000_000)

    def art(self) -> Art:
        """The drawing, which is the same for every photo of the item."""
        art = Art(self._rng("shape"), self.colour, self.pattern)
        REGISTRY[self.product_type].draw(art)
        return art

    def _rng(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(purpose.encode())])


def is_held_out(product_type: str, colour: str, pattern: str) -> bool:
    """Whether training never sees this combination: one combination in eight, and every held-out type."""
    return product_type in HELD_OUT_TYPES or zlib.crc32(f"{product_type}/{colour}/{pattern}".encode()) % 8 == 0


def draw_item(rng: np.random.Generator, types: tuple[str, ...] = TRAINED_TYPES, *, training: bool = False) -> Item:
    """A random item of one of the types. With ``training``, it is never a held-out combination."""
    while True:
        product_type, colour = str(rng.choice(types)), str(rng.choice(list(COLOURS)))
        pattern = str(rng.choice(PATTERNS, p=(0.4, 0.15, 0.15, 0.15, 0.15)))
        if not (training and is_held_out(product_type, colour, pattern)):
            break
    return Item(
        product_type=product_type,
        colour=colour,
        pattern=pattern,
        material=str(rng.choice(REGISTRY[product_type].materials)),
        audience=str(rng.choice(SHOP_WORDS["audiences"])),
        seed=int(rng.integers(2**31)),
    )
