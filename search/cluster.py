"""The index at scale: a Qdrant cluster by URL, with the payloads, filters and answers of the embedded one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any, cast

import qdrant_edge
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from search.conditions import Kit, fields_of
from search.index import (
    IMAGE,
    KEYWORDS,
    MOST_FIELDS,
    TEXT,
    WORDS,
    Closed,
    Hit,
    IndexAway,
    IndexFault,
    Kind,
    Leg,
    Point,
    Question,
    Where,
    decoded,
    depth,
    ordered,
)
from search.photos import Fingerprint
from search.store import RADIUS, Collection, next_name

_PAGE = 1000
_MORE = 8
"""Products that are asked for beyond those that are wanted, to order equal scores at the end of a page."""
_KINDS: dict[Kind, models.PayloadSchemaType] = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "number": models.PayloadSchemaType.FLOAT,
    "bool": models.PayloadSchemaType.BOOL,
}


class _Translated:
    """A client whose errors are IndexFault, with a sentence."""

    def __init__(self, client: QdrantClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            try:
                return method(*arguments, **options)
            except ResponseHandlingException as error:
                raise IndexAway(f"the Qdrant cluster does not answer ({error})") from error
            except UnexpectedResponse as error:
                if error.status_code == 404:
                    raise Closed("the collection is no longer there, or another one has taken its place") from error
                raise IndexFault(f"the Qdrant cluster answered {error.status_code} {error.reason_phrase}") from error

        return call


class ClusterIndex:
    """A collection of a Qdrant cluster."""

    def __init__(self, client: QdrantClient, name: str) -> None:
        self._client, self._name = client, name
        self._bm25 = qdrant_edge.Bm25(qdrant_edge.Bm25Config(avg_len=24))
        schema = client.get_collection(name).payload_schema
        self._fields: dict[str, Kind] = {key: _kind_of_schema(info.data_type) for key, info in schema.items()}

    def write(self, points: Sequence[Point], drop: Sequence[str] = ()) -> None:
        """Insert or replace points and delete the points ``drop``.

        The cluster applies the two parts of a batch in order, and a write that fails can be repeated as it is.
        """
        for point in points:
            self._index_all(point.payload)
        operations: list[Any] = []
        if points:
            batch = models.PointsList(points=[self._encode(point) for point in points])
            operations.append(models.UpsertOperation(upsert=batch))
        if drop:
            operations.append(models.DeleteOperation(delete=models.PointIdsList(points=list(drop))))
        if operations:
            self._client.batch_update_points(self._name, operations, wait=True)

    def amend(self, changes: Sequence[tuple[Sequence[str], Mapping[str, Any]]]) -> None:
        """Set fields of the payload of points, by their ids. The other fields and the vectors stay."""
        operations: list[Any] = []
        for ids, fields in changes:
            self._index_all(fields)
            change = models.SetPayload(payload=dict(fields), points=list(ids))
            operations.append(models.SetPayloadOperation(set_payload=change))
        if operations:
            self._client.batch_update_points(self._name, operations, wait=True)

    def _index_all(self, payload: Mapping[str, Any]) -> None:
        for key, kind in fields_of(payload):
            if len(self._fields) < MOST_FIELDS:
                self._index(key, kind)

    def _index(self, key: str, kind: Kind) -> None:
        if key not in self._fields:
            self._client.create_payload_index(self._name, key, _KINDS[kind], wait=True)
            self._fields[key] = kind

    def _encode(self, point: Point) -> models.PointStruct:
        vectors: dict[str, Any] = {name: vector.tolist() for name, vector in point.vectors.items()}
        if point.words:
            vectors[WORDS] = _sparse(self._bm25.embed_document(point.words))
        return models.PointStruct(id=point.id, vector=vectors, payload={**point.payload, "words": point.words})

    def ask(self, question: Question) -> list[Hit]:
        """The best products, one hit each, best first."""
        where = KIT.all_of(question.where, question.without)
        wanted = question.offset + question.limit
        params = models.SearchParams(exact=question.exact, hnsw_ef=max(128, wanted))
        legs = [self._query(leg) for leg in question.legs]
        query: Any = legs[0]
        using: str | None = question.legs[0].using
        prefetch = None
        if len(legs) > 1:
            query = models.RrfQuery(rrf=models.Rrf(k=60, weights=[leg.weight for leg in question.legs]))
            using = None
            prefetch = [
                models.Prefetch(query=leg, using=one.using, filter=where, params=params, limit=depth(wanted))
                for leg, one in zip(legs, question.legs, strict=True)
            ]
        elif question.diversity:
            mmr = models.Mmr(diversity=question.diversity, candidates_limit=depth(wanted))
            query = models.NearestQuery(nearest=legs[0], mmr=mmr)
        groups = self._client.query_points_groups(
            self._name,
            group_by="duplicate" if question.collapse else "product",
            query=query,
            using=using,
            prefetch=prefetch,
            query_filter=where,
            search_params=params,
            limit=wanted + _MORE,
            group_size=1,
            score_threshold=question.threshold,
            with_payload=True,
        ).groups
        hits = [Hit(str(best.id), best.score, best.payload or {}) for group in groups for best in group.hits]
        return ordered(hits, question)[question.offset : wanted]

    def _query(self, leg: Leg) -> Any:
        return _sparse(self._bm25.embed_query(leg.near)) if isinstance(leg.near, str) else leg.near.tolist()

    def points(self, where: Where, *, vectors: Sequence[str] = ()) -> Iterator[Point]:
        """All points that match, with the named vectors."""
        offset: Any = None
        while True:
            records, offset = self._client.scroll(
                self._name,
                scroll_filter=KIT.all_of(where),
                limit=_PAGE,
                offset=offset,
                with_payload=True,
                with_vectors=list(vectors) or False,
            )
            yield from (decoded(one.id, one.payload, one.vector, vectors) for one in records)
            if offset is None:
                return

    def get(self, ids: Sequence[str], *, vectors: Sequence[str] = ()) -> list[Point]:
        """The points with these ids, where they exist."""
        records = self._client.retrieve(self._name, list(ids), with_payload=True, with_vectors=list(vectors) or False)
        return [decoded(one.id, one.payload, one.vector, vectors) for one in records]

    def count(self, where: Where | None = None) -> int:
        """The number of points that match."""
        return self._client.count(self._name, count_filter=KIT.all_of(where or {}), exact=True).count

    def facet(self, key: str, where: Where | None = None, limit: int = 100) -> dict[str, int]:
        """The values of a field and the number of points with each, most frequent first."""
        if self._fields.get(key) == "number":
            return {}
        found = self._client.facet(self._name, key, facet_filter=KIT.all_of(where or {}), limit=limit, exact=True)
        return {str(hit.value): hit.count for hit in found.hits}

    def fields(self) -> dict[str, Kind]:
        """The indexed fields of the payload and their kinds."""
        return dict(self._fields)

    def optimize(self) -> None:
        """Do nothing: a cluster builds its graphs in the background."""

    def close(self) -> None:
        """Do nothing: the store owns the connection."""


class ClusterStore:
    """Collections of a cluster, named ``PREFIX-c0001`` and so on. The alias ``PREFIX`` is the served one."""

    def __init__(
        self,
        client: QdrantClient,
        prefix: str = "products",
        *,
        shards: int = 1,
        replicas: int = 1,
        across_types: bool = True,
    ) -> None:
        self._client, self._prefix = cast("QdrantClient", _Translated(client)), prefix
        self._shards, self._replicas, self._across_types = shards, replicas, across_types

    def __str__(self) -> str:
        return self._prefix

    def collections(self) -> list[Collection]:
        """All collections, oldest first."""
        names = sorted(one.name for one in self._client.get_collections().collections)
        return [self._read(name) for name in names if re.fullmatch(re.escape(self._prefix) + r"-c\d+", name)]

    def _read(self, name: str) -> Collection:
        return Collection.of(self._client.get_collection(name).config.metadata or {})

    def served(self) -> Collection | None:
        """The collection that answers questions."""
        return self._aliased(self._prefix)

    def previous(self) -> Collection | None:
        """The collection that was served before, for a rollback."""
        return self._aliased(f"{self._prefix}-previous")

    def _aliased(self, alias: str) -> Collection | None:
        aliases = self._client.get_aliases().aliases
        return next((self._read(one.collection_name) for one in aliases if one.alias_name == alias), None)

    def create(self, version: str, label: str, dimension: int, radius: int = RADIUS) -> Collection:
        """Make an empty collection, which is not served yet.

        Each product type has its own HNSW graph, which is smaller than one of all products and better within the type.
        Without ``across_types`` there is no graph of all products, which saves its memory: questions must then name
        types. The vectors are searched in INT8 and rescored in FP32.
        """
        name = next_name(self.collections())
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        made = Collection(name, version, label, dimension, radius, created)
        dense = models.VectorParams(size=dimension, distance=models.Distance.COSINE, on_disk=True)
        int8 = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
        self._client.create_collection(
            self._full(made),
            vectors_config={IMAGE: dense, TEXT: dense},
            sparse_vectors_config={WORDS: models.SparseVectorParams(modifier=models.Modifier.IDF)},
            hnsw_config=models.HnswConfigDiff(m=16 if self._across_types else 0, payload_m=16, ef_construct=128),
            quantization_config=models.ScalarQuantization(scalar=int8),
            shard_number=self._shards,
            replication_factor=self._replicas,
            metadata=asdict(made),
        )
        for key in KEYWORDS:
            tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=key == "product_type")
            self._client.create_payload_index(self._full(made), key, tenant)
        return made

    def keep(self, collection: Collection) -> None:
        """Store the description of a collection, after its figures, shares or attributes have changed."""
        self._client.update_collection(self._full(collection), metadata=asdict(collection))

    def open(self, collection: Collection) -> ClusterIndex:
        """Open a collection."""
        return ClusterIndex(self._client, self._full(collection))

    def promote(self, collection: Collection) -> None:
        """Serve a collection, in one step, and keep the one that was served."""
        served = self.served()
        if served and served.name == collection.name:
            return
        current = {one.alias_name for one in self._client.get_aliases().aliases}
        roles = {self._prefix: collection} | ({f"{self._prefix}-previous": served} if served else {})
        operations: list[Any] = []
        for alias, one in roles.items():
            if alias in current:
                operations.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
            made = models.CreateAlias(collection_name=self._full(one), alias_name=alias)
            operations.append(models.CreateAliasOperation(create_alias=made))
        self._client.update_collection_aliases(operations)

    def drop(self, collection: Collection) -> None:
        """Delete a collection. Raises IndexFault if it is served."""
        served = self.served()
        if served and served.name == collection.name:
            raise IndexFault(f"{collection.name} is served; promote another collection before you delete it")
        self._client.delete_collection(self._full(collection))

    def keep_photo(self, data: bytes, hashes: Fingerprint) -> str:
        """Store nothing: a shop with a cluster keeps its photos itself, and gives their URLs."""
        return ""

    def _full(self, collection: Collection) -> str:
        return f"{self._prefix}-{collection.name}"


def _kind_of_schema(data_type: models.PayloadSchemaType) -> Kind:
    return next((kind for kind, one in _KINDS.items() if one == data_type), "keyword")


def _sparse(vector: qdrant_edge.SparseVector) -> models.SparseVector:
    return models.SparseVector(indices=vector.indices, values=vector.values)


KIT = Kit(
    filter=lambda must, must_not, should: models.Filter(must=must, must_not=must_not, should=should),
    among=lambda key, values: models.FieldCondition(key=key, match=models.MatchAny(any=values)),
    is_=lambda key, value: models.FieldCondition(key=key, match=models.MatchValue(value=value)),
    between=lambda key, bounds: models.FieldCondition(key=key, range=models.Range(**bounds)),
)
