"""A shop: the collections of a store, and the server that encodes texts and photos for them.

A question is asked of a collection that the query's encoder made, so no answer mixes versions. After the server has
changed its models, the collection of the new version answers if it is promoted, and the one before until then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from search import questions
from search.changes import Changes
from search.index import Closed, Hit, Index, IndexFault, Using, Vector, WrongVersion
from search.ingest import LoadPhoto
from search.photos import PhotoError, load
from search.questions import Duplicates, Options, UnknownProduct
from search.store import Collection
from vlclip import Status, comparable

T = TypeVar("T")


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


class Shop(Changes):
    """Questions to the served collection of a store, and changes to it. Threads may share it."""

    def by_text(self, text: str, options: Options, fuse: Mapping[Using, float] | None = None) -> list[Hit]:
        """Products for a text; see `search.questions.by_text`.

        Without ``fuse``, the shares of the collection count. Diversity and a threshold are for photos alone.
        """

        def ask() -> list[Hit]:
            found = self._client.embed_texts([text])
            collection = self._made_by(found.version[0])
            chosen = fuse
            if fuse is None and not options.diversity and options.threshold is None:
                chosen = collection.shares
            return questions.by_text(self.opened(collection), text, found.embedding[0], options, chosen)

        return _again(ask)

    def encode(self, texts: Sequence[str]) -> tuple[Index, Vector]:
        """The embeddings [N, D] of texts, and the collection to ask with them."""
        found = self._client.embed_texts(texts)
        [collection] = {collection.name: collection for collection in map(self._made_by, {*found.version})}.values()
        return self.opened(collection), found.embedding

    def by_photo(self, photo: bytes, product_type: str | None, options: Options) -> PhotoAnswer:
        """Products that look like the product in a photo. Without a type, the most likely one of the index is taken.

        An empty type asks for the photo as a whole. Raises NoPhoto.
        """

        def ask() -> PhotoAnswer:
            kind = self.type_of(photo) if product_type is None else product_type
            found = self._client.embed_images([photo], kind)
            status = Status(int(found.status[0]))
            _require_image(status)
            hits = questions.by_photo(self.opened(self._made_by(found.version[0])), found.embedding[0], options)
            x0, y0, x1, y1 = (float(x) for x in found.box_xyxy[0])
            return PhotoAnswer(hits, kind, (x0, y0, x1, y1), float(found.score[0]), status == Status.GROUNDED)

        return _again(ask)

    def type_of(self, photo: bytes, *, candidates: int = 8) -> str:
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
        return _again(lambda: questions.similar(self.served(), product, options, widen=widen, duplicates=duplicates))

    def recommend(
        self,
        liked: Mapping[str, float],
        options: Options,
        *,
        disliked: Sequence[str] = (),
        duplicates: bool = False,
    ) -> list[Hit]:
        """Products for a person; see `search.questions.recommend`."""
        return _again(
            lambda: questions.recommend(self.served(), liked, options, disliked=disliked, duplicates=duplicates)
        )

    def duplicates(self, limit: int, offset: int = 0) -> list[Duplicates]:
        """Groups of photos that are copies of one, largest first."""
        return _again(lambda: questions.duplicates(self.served(), limit, offset))

    def payload(self, point: str) -> Mapping[str, Any]:
        """What is known of a photo of the index, by the id of a hit. Raises UnknownProduct."""
        try:
            points = self.served().get([str(UUID(point))])
        except ValueError:
            points = []
        if not points:
            raise UnknownProduct(f"the index has no photo {point!r}")
        return points[0].payload

    def photo(self, payload: Mapping[str, Any], load_photo: LoadPhoto = load) -> bytes:
        """The bytes of a photo of the index. Raises UnknownProduct if the photo is not stored or no longer there."""
        try:
            return load_photo(payload["photo"])
        except PhotoError as error:
            raise UnknownProduct(f"the photo of {payload['product']!r} cannot be shown: {error}") from None

    def ready(self) -> tuple[bool, bool]:
        """Whether products are indexed, and whether the server of the models is ready."""
        return self._store.served() is not None, self._client.health().ready

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


def _again(ask: Callable[[], T]) -> T:
    """The answer of ``ask``, which is called once more if the collection or the models were changed meanwhile."""
    try:
        return ask()
    except (Closed, WrongVersion):
        return ask()


def _require_image(status: Status) -> None:
    if status == Status.NOT_AN_IMAGE:
        raise NoPhoto("the photo is not a JPEG, PNG or WebP image, or it is damaged")
    if status == Status.TOO_LARGE:
        raise NoPhoto("the photo is larger than the server's limits")
