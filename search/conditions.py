"""Conditions of a question, built from the classes of either engine, and the names of fields in a payload."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.index import GROUPS, Kind, Where, kind_of


@dataclass(frozen=True)
class Kit:
    """What an engine builds conditions from.

    ``filter`` takes the lists must, must_not and should; ``among`` a field and the strings of which it has one; ``is_``
    a field and the boolean or string that it has; ``between`` a field and the bounds gte, gt, lte and lt.
    """

    filter: Callable[[list[Any], list[Any], list[Any]], Any]
    among: Callable[[str, list[str]], Any]
    is_: Callable[[str, Any], Any]
    between: Callable[[str, Mapping[str, float]], Any]

    def all_of(self, where: Where, without: Sequence[str] = ()) -> Any:
        """The filter for points that meet all conditions and are not of the products ``without``; None if all do."""
        must: list[Any] = []
        must_not: list[Any] = []
        for key, value in where.items():
            if isinstance(value, Mapping) and set(value) == {"not"}:
                must_not.append(self._one(key, value["not"]))
            elif isinstance(value, Mapping):
                must.append(self.between(key, value))
            else:
                must.append(self._one(key, value))
        if without:
            must_not.append(self.among("product", list(without)))
        return self.filter(must, must_not, []) if must or must_not else None

    def _one(self, key: str, value: Any) -> Any:
        """A field has a value, or one of several."""
        if isinstance(value, list | tuple):
            if all(isinstance(one, str) for one in value):
                return self.among(key, list(value))
            return self.filter([], [], [self._one(key, one) for one in value])
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self.between(key, {"gte": value, "lte": value})
        return self.is_(key, value)


def field_of(group: str, name: str) -> str:
    """The path of a field of the payload, such as ``attributes.price`` or ``attributes."screen size"``.

    Raises ValueError for a name that no path can have.
    """
    if not name or '"' in name or "\\" in name:
        raise ValueError(
            f"{name!r} cannot be the name of an attribute: quotation marks and backslashes are not possible"
        )
    return f"{group}.{name}" if re.fullmatch(r"[\w-]+", name) else f'{group}."{name}"'


def filtered(name: str) -> str:
    """The path of what a filter names: an attribute that the shop gave, or a guess as ``guessed.NAME``."""
    guessed = name.removeprefix("guessed.")
    return field_of("attributes", name) if guessed == name else field_of("guessed", guessed)


def name_of(group: str, field: str) -> str | None:
    """The name of a field of this group of the payload, or None for other fields."""
    head, _, name = field.partition(".")
    return name.strip('"') if head == group and name else None


def fields_of(payload: Mapping[str, Any]) -> Iterator[tuple[str, Kind]]:
    """The fields of a payload that are indexed when they are first seen, and their kinds."""
    for group in GROUPS:
        for name, value in payload.get(group, {}).items():
            yield field_of(group, name), kind_of(value)
