"""The product types: one drawing function each, in one module a department."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from training.catalogue.art import Art


@dataclass(frozen=True)
class ProductType:
    """A kind of product: what a shop calls it, its department, and how it is drawn.

    ``synonyms`` are other names that shoppers use; ``materials`` are words for a shop's text.
    """

    name: str
    department: str
    draw: Callable[[Art], None]
    synonyms: tuple[str, ...]
    materials: tuple[str, ...]


REGISTRY: dict[str, ProductType] = {}


def product(
    name: str, department: str, *, synonyms: tuple[str, ...] = (), materials: tuple[str, ...]
) -> Callable[[Callable[[Art], None]], Callable[[Art], None]]:
    """Register the drawing function below as a product type."""

    def register(draw: Callable[[Art], None]) -> Callable[[Art], None]:
        if name in REGISTRY:
            raise ValueError(f"the product type {name!r} is drawn twice")
        REGISTRY[name] = ProductType(name, department, draw, synonyms, materials)
        return draw

    return register
