"""The product types of the catalogue. Each one has a drawing function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from training.catalogue.art import Art


@dataclass(frozen=True)
class ProductType:
    """A kind of product: its name in the shop, its department, and the function that draws it.

    ``synonyms`` are other names that shoppers use. ``materials`` are words for the shop's texts.
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
    """Register the decorated drawing function as a product type. Raises ValueError for a name that is taken."""

    def register(draw: Callable[[Art], None]) -> Callable[[Art], None]:
        if name in REGISTRY:
            raise ValueError(f"the product type {name!r} is registered twice: give one of them another name")
        REGISTRY[name] = ProductType(name, department, draw, synonyms, materials)
        return draw

    return register
