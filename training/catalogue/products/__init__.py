"""The product types of the catalogue: products.csv lists them, and the modules draw them.

The function that draws a product type has its name: ``water_bottle`` draws the water bottle.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from training.catalogue.art import Art
from training.catalogue.products import (
    accessories,
    clothing,
    electronics,
    footwear,
    furniture,
    household,
    kitchen,
    leisure,
    toys,
)

MODULES = (accessories, clothing, electronics, footwear, furniture, household, kitchen, leisure, toys)


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


def read_types(table: Path) -> dict[str, ProductType]:
    """The product types of a table, by name. Raises KeyError if a type has no function that draws it."""
    functions = {name: function for module in MODULES for name, function in vars(module).items()}
    with table.open(newline="", encoding="utf-8") as file:
        return {
            row["name"]: ProductType(
                name=row["name"],
                department=row["department"],
                draw=functions[re.sub("[ -]", "_", row["name"])],
                synonyms=tuple(filter(None, row["synonyms"].split("; "))),
                materials=tuple(row["materials"].split("; ")),
            )
            for row in csv.DictReader(file)
        }


REGISTRY = read_types(Path(__file__).with_name("products.csv"))
