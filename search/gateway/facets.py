"""What to filter by: the values of product types and attributes, with the number of photos that would remain."""

from __future__ import annotations

from typing import Any

from search.conditions import name_of
from search.gateway.schemas import Facet, Facets, FacetsRequest
from search.index import Index

FEW = 40
"""Attributes with more values than this are not offered as filters."""


def count(index: Index, request: FacetsRequest) -> Facets:
    """Count the values that a question can be narrowed to.

    The counts of a filter obey the other filters, but not itself, so that a second value can be added to it.
    """
    chosen = request.where()
    if request.product_types is not None:
        chosen["product_type"] = request.product_types

    def values(key: str, limit: int) -> dict[str, int]:
        return index.facet(key, {name: value for name, value in chosen.items() if name != key}, limit)

    attributes: dict[str, Facet] = {}
    for key, kind in sorted(index.fields().items()):
        given, seen = name_of("attributes", key), name_of("guessed", key)
        if not (given or seen):
            continue
        counts: dict[str, int] = {}
        if kind != "number":
            counts = values(key, FEW + 1)
            if kind == "bool":  # the engines write them differently
                counts = {value.lower(): count for value, count in counts.items()}
            known: Any = chosen.get(key)
            if not counts or len(counts) > FEW or (len(counts) == 1 and known is None):
                continue
        attributes[given or f"guessed.{seen}"] = Facet(kind=kind, values=counts)
    return Facets(product_types=values("product_type", 1000), attributes=attributes)
