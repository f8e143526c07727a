"""A shop: the collections of a store, and the server that encodes texts and photos for them.

A question is asked of a collection that the query's encoder made, so no answer mixes versions. After the server has
changed its models, the collection of the new version answers if it is promoted, and the one before until then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import UUID

from search import attributes, questions
from search.attributes import Attribute, Guesser, Outcome
from search.index import Hit, Index, IndexFault, Using, Vector, WrongVersion
from search.ingest import LoadPhoto, Report, ingest
from search.photos import PhotoError, load
from search.questions import Options, UnknownProduct
from search.records import BadRow, Product
from search.reindex import Built, Gates, create, figures, products_of
from search.store import Collection, Store
from vlclip import Client, Status, comparable


class NoPhoto(ValueError):
    """The photo of a question is not an image that the server decodes."""


@dataclass(frozen=True)
class PhotoAnswer:
    """The products for a photo, and what was found in it: its type, the box x0 y0 x1 y1 in pixels and its score."""

    hits: list[Hit]
    product_type: str
    box_xyxy: tuple[float, float, float, float]
    score: float
    grounded: bool


class Shop:
    """Questions and changes to the served collection of a store. Threads may share it."""

    def __init__(self, store: Store, client: Client) -> None:
        self._store, self._client = store, client
        self._open: dict[str, Index] = {}
        self._guessers: dict[str, Guesser] = {}  # by the name of the collection
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._changed: set[str] = set()  # products that changed since the last reindex began

    def by_text(self, text: str, options: Options, fuse: Mapping[Using, float] | None = None) -> list[Hit]:
        """Products for a text; see `search.questions.by_text`.

        Without ``fuse``, the shares of the collection count. Diversity and a threshold are for photos alone.
        """
        found = self._client.embed_texts([text])
        collection = self._made_by(found.version[0])
        if fuse is None and not options.diversity and options.threshold is None:
            fuse = collection.shares
        return questions.by_text(self._index(collection), text, found.embedding[0], options, fuse)

    def encode(self, texts: Sequence[str]) -> tuple[Index, Vector]:
        """The embeddings [N, D] of texts, and the collection to ask with them."""
        found = self._client.embed_texts(texts)
        [collection] = {collection.name: collection for collection in map(self._made_by, {*found.version})}.values()
        return self._index(collection), found.embedding

    def keep_shares(self, shares: Mapping[Using, float]) -> None:
        """Keep the shares of image, text and words with the served collection; its text questions use them."""
        with self._writing:
            self._store.keep(replace(self._served(), shares=shares))

    def by_photo(self, photo: bytes, product_type: str | None, options: Options) -> PhotoAnswer:
        """Products that look like the product in a photo. Without a type, the most likely one of the index is taken.

        An empty type asks for the photo as a whole. Raises NoPhoto.
        """
        kind = self.type_of(photo) if product_type is None else product_type
        found = self._client.embed_images([photo], kind)
        status = Status(int(found.status[0]))
        _require_image(status)
        hits = questions.by_photo(self._index(self._made_by(found.version[0])), found.embedding[0], options)
        x0, y0, x1, y1 = (float(x) for x in found.box_xyxy[0])
        return PhotoAnswer(hits, kind, (x0, y0, x1, y1), float(found.score[0]), status == Status.GROUNDED)

    def type_of(self, photo: bytes, *, candidates: int = 3) -> str:
        """The product type of the index that a photo most likely shows, or "" if none is found in it.

        The types whose names are closest to the whole photo are looked for, and the most confident box decides.
        """
        whole = self._client.embed_whole_images([photo])
        _require_image(Status(int(whole.status[0])))
        types = [kind for kind in self.served().facet("product_type", limit=1000) if kind]
        if not types:
            return ""
        closeness = self._client.embed_texts(types).embedding @ whole.embedding[0]
        nearest = [types[n] for n in closeness.argsort()[::-1][:candidates]]
        found = self._client.ground([photo] * len(nearest), nearest)
        best = int(found.score.argmax())
        return nearest[best] if found.status[best] == Status.GROUNDED else ""

    def similar(self, product: str, options: Options, *, widen: bool = False, duplicates: bool = False) -> list[Hit]:
        """Products that look like a product; see `search.questions.similar`."""
        return questions.similar(self.served(), product, options, widen=widen, duplicates=duplicates)

    def recommend(self, liked: Mapping[str, float], options: Options, *, disliked: Sequence[str] = ()) -> list[Hit]:
        """Products for a person; see `search.questions.recommend`."""
        return questions.recommend(self.served(), liked, options, disliked=disliked)

    def upsert(
        self,
        rows: Iterable[Product | BadRow],
        *,
        progress: Callable[[int], None] = lambda products: None,
        load_photo: LoadPhoto = load,
    ) -> Report:
        """Insert products or replace them whole. The first products make the collection if there is none."""
        with self._writing:
            served = self._store.served() or self._first()
            return self._ingest(self._noted(rows), served, self._client, progress, load_photo)

    def _noted(self, rows: Iterable[Product | BadRow]) -> Iterator[Product | BadRow]:
        for row in rows:
            if isinstance(row, Product):
                self._changed.add(row.id)
            yield row

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
            self._index(collection),
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
            collection = self._served()
            wanted = attributes.merged(collection.attributes, new)
            return self._apply(collection, self._client, wanted)

    def _apply(self, collection: Collection, client: Client, wanted: Sequence[Attribute]) -> list[Outcome]:
        guesser, outcomes = attributes.apply(self._index(collection), client, wanted, collection.version)
        self._guessers[collection.name] = guesser
        self._store.keep(replace(collection, attributes=tuple(guesser.attributes)))
        return outcomes

    def attributes(self) -> tuple[Attribute, ...]:
        """What is guessed of the products."""
        return self._served().attributes

    def delete(self, products: Sequence[str]) -> int:
        """Delete products. Returns how many of them the index had."""
        with self._writing:
            self._changed.update(products)
            return _delete(self.served(), products)

    def reindex(
        self,
        client: Client,
        *,
        rows: Iterable[Product | BadRow] | None = None,
        gates: Gates | None = None,
        load_photo: LoadPhoto = load,
        progress: Callable[[int], None] = lambda products: None,
    ) -> Built:
        """Build the next collection with the models behind ``client``, and serve it if it passes the gates.

        The products are those of the served collection, or ``rows``. What changes meanwhile is changed in the new
        collection before the switch, while further changes wait. The served collection is kept for a rollback. A
        collection that does not pass the gates is deleted.
        """
        served = self.served()
        collection = create(self._store, client)
        index = self._index(collection)
        self._changed.clear()
        given = products_of(served) if rows is None else rows
        report = self._ingest(given, collection, client, progress, load_photo)
        if wanted := self.attributes():
            self._apply(collection, client, wanted)
            collection = next(one for one in self._store.collections() if one.name == collection.name)
        index.optimize()
        with self._writing:
            changed = sorted(self._changed)
            _delete(index, changed)
            self._ingest(products_of(served, {"product": changed}), collection, client, progress, load_photo)
            before, after = figures(served, self._client), figures(index, client)
            failures = (gates or Gates()).failures(before, after)
            if failures:
                with self._lock:
                    self._open.pop(collection.name).close()
                self._store.drop(collection)
            else:
                self._store.keep(replace(collection, figures=after, shares=self._served().shares))
                self._store.promote(collection)
                self._client = client
        return Built(collection, report, before, after, failures)

    def payload(self, point: str) -> Mapping[str, Any]:
        """What is known of a photo of the index, by the id of a hit. Raises UnknownProduct."""
        try:
            points = self.served().get([str(UUID(point))])
        except ValueError:
            points = []
        if not points:
            raise UnknownProduct(f"the index has no photo {point!r}")
        return points[0].payload

    def photo(self, payload: Mapping[str, Any]) -> bytes:
        """The bytes of a photo of the index. Raises UnknownProduct if the photo is not stored or no longer there."""
        try:
            return load(payload["photo"])
        except PhotoError as error:
            raise UnknownProduct(f"the photo of {payload['product']!r} cannot be shown: {error}") from None

    def versions(self) -> dict[str, Any]:
        """The collections, and the names of the served one and of the one before."""
        served, previous = self._store.served(), self._store.previous()
        return {
            "served": served.name if served else None,
            "previous": previous.name if previous else None,
            "collections": [asdict(one) for one in self._store.collections()],
        }

    def ready(self) -> tuple[bool, bool]:
        """Whether products are indexed, and whether the server of the models is ready."""
        return self._store.served() is not None, self._client.health().ready

    def served(self) -> Index:
        """The collection that answers questions. Raises IndexFault if nothing is indexed."""
        return self._index(self._served())

    def _served(self) -> Collection:
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

    def _first(self) -> Collection:
        collection = create(self._store, self._client)
        self._store.promote(collection)
        return collection

    def _made_by(self, version: str) -> Collection:
        """The served collection or the one before, whichever the encoder of this version made."""
        candidates = [one for one in (self._store.served(), self._store.previous()) if one]
        for collection in candidates:
            if comparable(collection.version, version):
                return collection
        if not candidates:
            raise IndexFault(f"{self._store} has no products yet; index a catalogue first")
        raise WrongVersion(
            f"the server encodes with {version}, but the index was made by {candidates[0].version} "
            f"({candidates[0].label}); run reindex, or serve the models that made the index"
        )

    def _index(self, collection: Collection) -> Index:
        with self._lock:
            if collection.name not in self._open:
                self._open[collection.name] = self._store.open(collection)
            return self._open[collection.name]


def _delete(index: Index, products: Sequence[str]) -> int:
    """Delete products from a collection. Returns how many it had."""
    points = list(index.points({"product": list(products)})) if products else []
    if points:
        index.write([], [point.id for point in points])
    return len({point.payload["product"] for point in points})


def _require_image(status: Status) -> None:
    if status == Status.NOT_AN_IMAGE:
        raise NoPhoto("the photo is not a JPEG, PNG or WebP image, or it is damaged")
    if status == Status.TOO_LARGE:
        raise NoPhoto("the photo is larger than the server's limits")
