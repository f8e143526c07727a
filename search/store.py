"""Collections: one for each version of the models, of which one is served and the one before it is kept.

`FolderStore` keeps them as folders with Qdrant Edge, `search.cluster.ClusterStore` in a Qdrant cluster.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

from search.attributes import Attribute
from search.edge import EdgeIndex
from search.index import Index, IndexFault, Using
from search.photos import Fingerprint

RADIUS = 3
"""Two photos are duplicates if their perceptual hashes differ in at most this many of 64 bits."""


@dataclass(frozen=True)
class Collection:
    """A collection and what made it. ``version`` and ``label`` are those of the pipeline `product_image`."""

    name: str
    version: str
    label: str
    dimension: int
    radius: int = RADIUS
    created: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What the gates measured when it was built."""
    shares: Mapping[Using, float] = field(default_factory=dict)
    """Shares of image, text and words in a text question, measured by `search.evaluate`. None: the photos alone."""
    attributes: tuple[Attribute, ...] = ()
    """What is guessed of its products."""

    @staticmethod
    def of(row: Mapping[str, Any]) -> Collection:
        """The collection of its description as JSON, which `dataclasses.asdict` makes."""
        attributes = [
            Attribute(**{**one, "values": tuple(one["values"]), "phrases": tuple(one["phrases"])})
            for one in row.get("attributes", ())
        ]
        return Collection(**{**row, "attributes": tuple(attributes)})


class Store(Protocol):
    """Where collections are kept."""

    def collections(self) -> list[Collection]:
        """All collections, oldest first."""

    def served(self) -> Collection | None:
        """The collection that answers questions."""

    def previous(self) -> Collection | None:
        """The collection that was served before, for a rollback."""

    def create(self, version: str, label: str, dimension: int, radius: int = RADIUS) -> Collection:
        """Make an empty collection, which is not served yet."""

    def keep(self, collection: Collection) -> None:
        """Store the description of a collection, after its figures, shares or attributes have changed."""

    def open(self, collection: Collection) -> Index:
        """Open a collection."""

    def promote(self, collection: Collection) -> None:
        """Serve a collection, in one step, and keep the one that was served. Older ones can be dropped."""

    def drop(self, collection: Collection) -> None:
        """Delete a collection. Raises IndexFault if it is served."""

    def keep_photo(self, data: bytes, hashes: Fingerprint) -> str:
        """Store a photo that has no path or URL of its own. Returns its path, or "" where photos are not stored."""


def rollback(store: Store) -> Collection:
    """Serve the previous collection again. Raises IndexFault if there is none."""
    before = store.previous()
    if before is None:
        raise IndexFault("there is no previous collection to go back to; a rollback needs an earlier reindex")
    store.promote(before)
    return before


def next_name(collections: list[Collection]) -> str:
    """A name that sorts after all others: "c0001", "c0002" …"""
    return f"c{max((int(one.name[1:]) for one in collections), default=0) + 1:04d}"


class FolderStore:
    """Collections in the subfolders of a folder. ``served.json`` names the served one and the one before."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __str__(self) -> str:
        return str(self._folder)

    def collections(self) -> list[Collection]:
        """All collections, oldest first."""
        return [_read(path) for path in sorted(self._folder.glob("c[0-9]*/collection.json"))]

    def served(self) -> Collection | None:
        """The collection that answers questions."""
        return self._named("served")

    def previous(self) -> Collection | None:
        """The collection that was served before, for a rollback."""
        return self._named("previous")

    def _named(self, role: str) -> Collection | None:
        try:
            name = json.loads((self._folder / "served.json").read_text()).get(role)
        except FileNotFoundError:
            return None
        path = self._folder / str(name) / "collection.json"
        return _read(path) if name and path.exists() else None

    def create(self, version: str, label: str, dimension: int, radius: int = RADIUS) -> Collection:
        """Make an empty collection, which is not served yet."""
        name = next_name(self.collections())
        made = Collection(name, version, label, dimension, radius, _now())
        shutil.rmtree(
            self._folder / name, ignore_errors=True
        )  # what a process left that was killed while it created it
        EdgeIndex(self._folder / name, dimension=dimension).close()
        self.keep(made)
        return made

    def keep(self, collection: Collection) -> None:
        """Store the description of a collection, after its figures, shares or attributes have changed."""
        _replace(self._folder / collection.name / "collection.json", asdict(collection))

    def open(self, collection: Collection) -> EdgeIndex:
        """Open a collection."""
        return EdgeIndex(self._folder / collection.name)

    def promote(self, collection: Collection) -> None:
        """Serve a collection, in one step, and keep the one that was served."""
        served = self.served()
        if served and served.name == collection.name:
            return
        _replace(self._folder / "served.json", {"served": collection.name, "previous": served.name if served else None})

    def drop(self, collection: Collection) -> None:
        """Delete a collection. Raises IndexFault if it is served."""
        served = self.served()
        if served and served.name == collection.name:
            raise IndexFault(f"{collection.name} is served; promote another collection before you delete it")
        shutil.rmtree(self._folder / collection.name)

    def keep_photo(self, data: bytes, hashes: Fingerprint) -> str:
        """Store a photo that has no path or URL of its own. Returns its path."""
        path = self._folder / "photos" / hashes.content[:2] / hashes.content
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.with_suffix(f".{threading.get_ident()}")
            scratch.write_bytes(data)
            scratch.replace(path)
        return str(path)


def _read(path: Path) -> Collection:
    return Collection.of(json.loads(path.read_text()))


def _replace(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    with scratch.open("w") as file:
        json.dump(content, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
