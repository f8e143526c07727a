"""Changes to a shop: products that are inserted, replaced or deleted, and the next version of the models."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from search import attributes
from search.attributes import Attribute, Guesser, Outcome
from search.index import Index, IndexFault, Using
from search.ingest import LoadPhoto, Report, ingest
from search.photos import load
from search.records import BadRow, Product
from search.reindex import Built, Gates, create, digests, figures, products_of
from search.store import RADIUS, Collection, Store, rollback
from vlclip import Client


class Changes:
    """The collections of a store, and what changes them. Threads may share it. One change is made at a time."""

    def __init__(self, store: Store, client: Client) -> None:
        self._store, self._client = store, client
        self._open: dict[str, Index] = {}
        self._guessers: dict[str, Guesser] = {}  # by the name of the collection
        self._before: Client | None = None  # the client of the collection before, if it is another one
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._reindexing = threading.Lock()

    def upsert(
        self,
        rows: Iterable[Product | BadRow],
        *,
        progress: Callable[[int], None] = lambda products: None,
        load_photo: LoadPhoto = load,
        radius: int | None = None,
        delete_missing: bool = False,
    ) -> Report:
        """Insert products or replace them whole. The first products make the collection if there is none.

        ``radius`` is that of duplicates, for the first products. ``delete_missing`` deletes the products that ``rows``
        do not have, unless some rows are bad. Raises IndexFault if the collection has another radius.
        """
        with self._writing:
            served = self._store.served() or self._first(RADIUS if radius is None else radius)
            if radius not in (None, served.radius):
                raise IndexFault(
                    f"the duplicates of this index are within {served.radius} bits, not {radius}; use another --index"
                )
            given: set[str] = set()
            report = self._ingest(_noted(rows, given), served, self._client, progress, load_photo)
            if delete_missing and not report.bad_count:
                index = self.opened(served)
                report.deleted = _delete(index, sorted(digests(index).keys() - given))
            return report

    def _ingest(
        self,
        rows: Iterable[Product | BadRow],
        collection: Collection,
        client: Client,
        progress: Callable[[int], None],
        load_photo: LoadPhoto,
    ) -> Report:
        return ingest(
            rows,
            self.opened(collection),
            client,
            version=collection.version,
            radius=collection.radius,
            progress=progress,
            load_photo=load_photo,
            keep_photo=self._store.keep_photo,
            guesser=self._guesser(collection, client),
        )

    def _guesser(self, collection: Collection, client: Client) -> Guesser | None:
        """What guesses the attributes of a collection. Its phrases are embedded once."""
        made = self._guessers.get(collection.name)
        if made is None or tuple(made.attributes) != collection.attributes:
            made = Guesser(client, collection.attributes, collection.version)
            self._guessers[collection.name] = made
        return made if collection.attributes else None

    def guess(self, new: Sequence[Attribute]) -> list[Outcome]:
        """Guess attributes of all products, in addition to those that are guessed already; see `search.attributes`.

        Products that are inserted or replaced later are guessed too. An attribute without values is forgotten.
        """
        with self._writing:
            collection = self.current()
            wanted = attributes.merged(collection.attributes, new)
            return self._apply(collection, self._client, wanted)

    def _apply(self, collection: Collection, client: Client, wanted: Sequence[Attribute]) -> list[Outcome]:
        guesser, outcomes = attributes.apply(self.opened(collection), client, wanted, collection.version)
        self._guessers[collection.name] = guesser
        self._store.keep(replace(collection, attributes=tuple(guesser.attributes)))
        return outcomes

    def attributes(self) -> tuple[Attribute, ...]:
        """What is guessed of the products."""
        return self.current().attributes

    def delete(self, products: Sequence[str]) -> int:
        """Delete products. Returns how many of them the index had."""
        with self._writing:
            return _delete(self.served(), products)

    def keep_shares(self, shares: Mapping[Using, float]) -> None:
        """Keep the shares of image, text and words with the served collection; its text questions use them."""
        with self._writing:
            self._store.keep(replace(self.current(), shares=shares))

    def reindex(
        self,
        client: Client,
        *,
        rows: Iterable[Product | BadRow] | None = None,
        queries: Sequence[tuple[str, str]] = (),
        gates: Gates | None = None,
        load_photo: LoadPhoto = load,
        progress: Callable[[int], None] = lambda products: None,
    ) -> Built:
        """Build the next collection with the models behind ``client``, and serve it if it passes the gates.

        The products are those of the served collection, or ``rows``. What changes meanwhile is
        changed in the new collection before the switch, while further changes wait. ``queries`` are texts with the id
        of the product that each should find. The served collection is kept for a rollback, and older ones are deleted.
        A collection that does not pass the gates is deleted. An interrupted reindex continues when it is called again.
        """
        if not self._reindexing.acquire(blocking=False):
            raise IndexFault("the next collection is being built already; wait until it is served or refused")
        try:
            served = self.current()
            collection = create(self._store, client, served.radius)
            with self._writing:
                before = digests(self.opened(served))
            given = products_of(self.opened(served)) if rows is None else rows
            report = self._fill(collection, given, client, load_photo, progress)
            with self._writing:
                self._catch_up(served, collection, before, client, load_photo)
                return self._judge(served, collection, client, report, queries, gates or Gates())
        finally:
            self._reindexing.release()

    def _fill(
        self,
        collection: Collection,
        rows: Iterable[Product | BadRow],
        client: Client,
        load_photo: LoadPhoto,
        progress: Callable[[int], None],
    ) -> Report:
        """Write all products to a collection, which may have some already, and guess their attributes."""
        index, kept = self.opened(collection), set[str]()
        report = self._ingest(_noted(rows, kept), collection, client, progress, load_photo)
        _delete(index, sorted(digests(index).keys() - kept))
        if wanted := self.attributes():
            self._apply(collection, client, wanted)
        index.optimize()
        return report

    def _catch_up(
        self,
        served: Collection,
        collection: Collection,
        before: Mapping[str, str],
        client: Client,
        load_photo: LoadPhoto,
    ) -> None:
        """Change in a collection what has changed in the served one since ``before``."""
        now = digests(self.opened(served))
        changed = sorted(one for one in before.keys() | now.keys() if before.get(one) != now.get(one))
        _delete(self.opened(collection), [one for one in changed if one not in now])
        if changed:
            rows = products_of(self.opened(served), {"product": changed})
            self._ingest(rows, self._stored(collection), client, lambda products: None, load_photo)

    def _judge(
        self,
        served: Collection,
        collection: Collection,
        client: Client,
        report: Report,
        queries: Sequence[tuple[str, str]],
        gates: Gates,
    ) -> Built:
        """Serve a collection if it passes the gates, and delete it if not."""
        before = figures(self.opened(served), served, self._client, queries)
        after = figures(self.opened(collection), collection, client, queries)
        failures = gates.failures(before, after)
        if failures:
            self._drop(collection)
        else:
            collection = replace(self._stored(collection), figures=after, shares=self._stored(served).shares)
            self._store.keep(collection)
            self._store.promote(collection)
            self._before, self._client = (None if client is self._client else self._client), client
            for old in self._store.collections():
                if old.name not in (served.name, collection.name):
                    self._drop(old)
        return Built(collection, report, before, after, failures)

    def _stored(self, collection: Collection) -> Collection:
        """A collection as it is described in the store now."""
        return next(one for one in self._store.collections() if one.name == collection.name)

    def _drop(self, collection: Collection) -> None:
        with self._lock:
            if index := self._open.pop(collection.name, None):
                index.close()
        self._store.drop(collection)

    def rollback(self) -> Collection:
        """Serve the previous collection again, with the models that made it where they were another server's.

        If one server has both versions, it must go back too: until then, what it encodes is answered by the collection
        that it fits. Raises IndexFault if there is no previous collection.
        """
        with self._writing:
            served = rollback(self._store)
            if self._before is not None:
                self._client, self._before = self._before, self._client
            return served

    def versions(self) -> dict[str, Any]:
        """The collections, and the names of the served one and of the one before."""
        served, previous = self._store.served(), self._store.previous()
        return {
            "served": served.name if served else None,
            "previous": previous.name if previous else None,
            "collections": [asdict(one) for one in self._store.collections()],
        }

    def served(self) -> Index:
        """The collection that answers questions. Raises IndexFault if nothing is indexed."""
        return self.opened(self.current())

    def current(self) -> Collection:
        """The description of the collection that answers questions. Raises IndexFault if nothing is indexed."""
        collection = self._store.served()
        if collection is None:
            raise IndexFault(f"{self._store} has no products yet; index a catalogue first")
        return collection

    def close(self) -> None:
        """Release all collections."""
        with self._lock:
            for index in self._open.values():
                index.close()
            self._open.clear()

    def _first(self, radius: int) -> Collection:
        collection = create(self._store, self._client, radius)
        self._store.promote(collection)
        return collection

    def opened(self, collection: Collection) -> Index:
        """A collection, which is opened once."""
        with self._lock:
            if collection.name not in self._open:
                self._open[collection.name] = self._store.open(collection)
            return self._open[collection.name]


def _noted(rows: Iterable[Product | BadRow], ids: set[str]) -> Iterator[Product | BadRow]:
    """The rows, while the ids of their products are added to ``ids``."""
    for row in rows:
        if isinstance(row, Product):
            ids.add(row.id)
        yield row


def _delete(index: Index, products: Sequence[str]) -> int:
    """Delete products from a collection. Returns how many it had."""
    points = list(index.points({"product": list(products)})) if products else []
    if points:
        index.write([], [point.id for point in points])
    return len({point.payload["product"] for point in points})
