"""The embedded index: Qdrant Edge, the Rust engine in this process, one shard in a folder."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qdrant

from search.conditions import Kit, field_of, fields_of
from search.index import (
    IMAGE,
    KEYWORDS,
    MOST_FIELDS,
    TEXT,
    WORDS,
    Closed,
    Hit,
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

EF = 128
"""Candidates of a search. `python -m benchmarks.index` measures what more would find."""
_PENDING = "pending.npz"
_SHARD = "shard"
_MOST = 10_000  # points that one question reads at most, to find enough products
_PAGE = 1000  # points that are read at a time
_KINDS: dict[Kind, qdrant.PayloadSchemaType] = {
    "keyword": qdrant.PayloadSchemaType.Keyword,
    "number": qdrant.PayloadSchemaType.Float,
    "bool": qdrant.PayloadSchemaType.Bool,
}


class EdgeIndex:
    """An index in a folder. Threads may share it; a second process cannot open it.

    A write is recorded in a file before it is applied, and applied again when the folder is opened after a crash. So a
    reader sees a batch whole or not at all, also after a crash.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dimension: int | None = None,
        vectors: Sequence[str] = (IMAGE, TEXT),
        quantized: bool = False,
        ef: int = EF,
    ) -> None:
        """Open the index, or create it if ``dimension`` is given. Raises IndexFault.

        ``vectors`` and ``quantized`` (searched in INT8, rescored in FP32) are fixed when it is created. ``ef`` is the
        number of candidates of a search: more take longer and find more of the nearest.
        """
        self._ef = ef
        self._folder = folder
        self._bm25 = qdrant.Bm25(qdrant.Bm25Config(avg_len=24))
        self._lock = _SharedLock()
        self._writes = threading.Lock()
        shard = folder / _SHARD
        if shard.exists():
            try:
                self._shard = qdrant.EdgeShard.load(str(shard))
            except Exception as error:  # the engine raises Exception itself
                if "WAL" in str(error):
                    raise IndexFault(f"another process has the index {folder} open; close it first") from None
                raise IndexFault(f"the index {folder} cannot be opened ({error})") from None
        elif dimension is None:
            raise IndexFault(f"there is no index in {folder}")
        else:
            shard.mkdir(parents=True)
            self._shard = qdrant.EdgeShard.create(str(shard), _config(dimension, vectors, quantized))
        config = json.loads((shard / "edge_config.json").read_text())
        self._dimension = int(config["vectors"][IMAGE]["size"])
        kinds = {kind: name for name, kind in _KINDS.items()}
        schema = self._shard.info().payload_schema
        self._fields: dict[str, Kind] = {key: kinds[info.data_type] for key, info in schema.items()}
        for key in (*KEYWORDS, "flags"):
            self._index(key, "keyword")
        if (folder / _PENDING).exists():
            points, drop = _read_batch(folder / _PENDING)
            self._apply([self._encode(point) for point in points], drop)

    def write(self, points: Sequence[Point], drop: Sequence[str] = ()) -> None:
        """Insert or replace points and delete the points ``drop``, all of it or nothing."""
        with self._writes:  # one batch at a time is recorded
            if self._lock.ended:
                raise Closed(f"the collection in {self._folder} was closed")
            # What the engine would refuse is refused here, before anything is recorded.
            encoded = [self._encode(point) for point in points]
            with self._lock.alone():
                for point in points:
                    self._index_all(point.payload)
            _write_batch(self._folder / _PENDING, points, drop)
            self._apply(encoded, drop)

    def _apply(self, points: Sequence[qdrant.Point], drop: Sequence[str]) -> None:
        with self._lock.alone():
            if points:
                self._shard.update(qdrant.UpdateOperation.upsert_points(list(points)))
            if drop:
                self._shard.update(qdrant.UpdateOperation.delete_points(list(drop)))
            (self._folder / _PENDING).unlink(missing_ok=True)

    def amend(self, changes: Sequence[tuple[Sequence[str], Mapping[str, Any]]]) -> None:
        """Set fields of the payload of points, by their ids. The other fields and the vectors stay."""
        with self._writes, self._lock.alone():
            for ids, fields in changes:
                self._index_all(fields)
                self._shard.update(qdrant.UpdateOperation.set_payload(list(ids), dict(fields)))

    def _index_all(self, payload: Mapping[str, Any]) -> None:
        for key, kind in fields_of(payload):
            if len(self._fields) < MOST_FIELDS:
                self._index(key, kind)

    def _index(self, key: str, kind: Kind) -> None:
        if key not in self._fields:
            self._shard.update(qdrant.UpdateOperation.create_field_index(key, _KINDS[kind]))
            self._fields[key] = kind

    def _encode(self, point: Point) -> qdrant.Point:
        for name, vector in point.vectors.items():
            if vector.shape != (self._dimension,):
                raise ValueError(
                    f"the vector {name} of {point.id} has the shape {vector.shape}, not ({self._dimension},)"
                )
        vectors: dict[str, Any] = {name: vector.tolist() for name, vector in point.vectors.items()}
        if point.words:
            vectors[WORDS] = self._bm25.embed_document(point.words)
        attributes = point.payload.get("attributes", {}).items()
        flags = [_flag(field_of("attributes", name), value) for name, value in attributes if isinstance(value, bool)]
        return qdrant.Point(point.id, vectors, {**point.payload, "words": point.words, "flags": flags})

    def ask(self, question: Question) -> list[Hit]:
        """The best products, one hit each, best first."""
        wanted = question.offset + question.limit
        limit = min(wanted * 2 + 8, _MOST)
        where = KIT.all_of(question.where, question.without)
        while True:
            with self._lock.shared():
                found = self._shard.query(self._request(question, limit, where))
            hits = ordered([Hit(str(hit.id), hit.score, hit.payload or {}) for hit in found], question)
            if len(hits) >= wanted or len(found) < limit or limit >= _MOST:
                return hits[question.offset : wanted]
            limit = min(limit * 4, _MOST)

    def _request(self, question: Question, limit: int, where: qdrant.Filter | None) -> qdrant.QueryRequest:
        rescored = qdrant.QuantizationSearchParams(rescore=True, oversampling=2.0)
        params = qdrant.SearchParams(exact=question.exact, hnsw_ef=max(self._ef, limit), quantization=rescored)
        legs = [self._query(leg) for leg in question.legs]
        chosen_from = depth((limit + 1) // 2)
        query: Any
        prefetches = None
        if len(legs) > 1:
            query = qdrant.Fusion.Rrf(k=60, weights=[leg.weight for leg in question.legs])
            prefetches = [qdrant.Prefetch(limit=chosen_from, query=leg, params=params, filter=where) for leg in legs]
        elif question.diversity:
            near = question.legs[0]
            assert isinstance(near.near, np.ndarray)
            query = qdrant.Mmr(near.near.tolist(), 1 - question.diversity, chosen_from, using=near.using)
        else:
            query = legs[0]
        return qdrant.QueryRequest(
            limit=limit,
            query=query,
            prefetches=prefetches,
            filter=where,
            score_threshold=question.threshold,
            params=params,
            with_payload=True,
        )

    def _query(self, leg: Leg) -> qdrant.Query:
        near: Any = self._bm25.embed_query(leg.near) if isinstance(leg.near, str) else leg.near.tolist()
        return qdrant.Query.Nearest(near, using=leg.using)

    def points(self, where: Where, *, vectors: Sequence[str] = ()) -> Iterator[Point]:
        """All points that match, with the named vectors."""
        offset: Any = None
        condition = KIT.all_of(where)
        while True:
            request = qdrant.ScrollRequest(
                offset=offset, limit=_PAGE, filter=condition, with_payload=True, with_vector=list(vectors) or False
            )
            with self._lock.shared():
                records, offset = self._shard.scroll(request)
            yield from (decoded(one.id, one.payload, one.vector, vectors) for one in records)
            if offset is None:
                return

    def get(self, ids: Sequence[str], *, vectors: Sequence[str] = ()) -> list[Point]:
        """The points with these ids, where they exist."""
        with self._lock.shared():
            records = self._shard.retrieve(list(ids), with_payload=True, with_vector=list(vectors) or False)
        return [decoded(one.id, one.payload, one.vector, vectors) for one in records]

    def count(self, where: Where | None = None) -> int:
        """The number of points that match."""
        with self._lock.shared():
            return self._shard.count(qdrant.CountRequest(filter=KIT.all_of(where or {}), exact=True))

    def facet(self, key: str, where: Where | None = None, limit: int = 100) -> dict[str, int]:
        """The values of a field and the number of points with each, most frequent first."""
        if self._fields.get(key, "number") == "number":
            return {}
        request = qdrant.FacetRequest(key, limit=limit, exact=True, filter=KIT.all_of(where or {}))
        with self._lock.shared():
            return {str(hit.value): hit.count for hit in self._shard.facet(request) if hit.count}

    def fields(self) -> dict[str, Kind]:
        """The indexed fields of the payload and their kinds."""
        return dict(self._fields)

    def optimize(self) -> None:
        """Build the HNSW graphs. Returns when they are built; searches go on meanwhile."""
        if self._lock.ended:
            return
        self._shard.optimize()
        self._shard.flush()

    def close(self) -> None:
        """Write everything to disk and release the folder."""
        with self._writes, self._lock.alone():
            if not self._lock.ended:
                self._lock.ended = True
                self._shard.flush()
                self._shard.close()


def _config(dimension: int, vectors: Sequence[str], quantized: bool) -> qdrant.EdgeConfig:
    int8 = qdrant.ScalarQuantizationConfig(qdrant.ScalarType.Int8, quantile=0.99, memory=qdrant.Memory.Pinned)
    dense = qdrant.EdgeVectorParams(
        size=dimension,
        distance=qdrant.Distance.Cosine,
        memory=qdrant.Memory.Cold if quantized else None,
        quantization_config=int8 if quantized else None,
    )
    return qdrant.EdgeConfig(
        vectors=dict.fromkeys(vectors, dense),
        sparse_vectors={WORDS: qdrant.EdgeSparseVectorParams(modifier=qdrant.Modifier.Idf)},
        hnsw_config=qdrant.HnswIndexConfig(m=16, ef_construct=128, full_scan_threshold=10_000),
        wal_enabled=True,
    )


def _is(key: str, value: Any) -> qdrant.FieldCondition:
    if isinstance(value, bool):
        return qdrant.FieldCondition("flags", match=qdrant.MatchValue(_flag(key, value)))
    return qdrant.FieldCondition(key, match=qdrant.MatchValue(value))


KIT = Kit(
    filter=lambda must, must_not, should: qdrant.Filter(must=must, must_not=must_not, should=should),
    among=lambda key, values: qdrant.FieldCondition(key, match=qdrant.MatchAny(values)),
    is_=_is,
    between=lambda key, bounds: qdrant.FieldCondition(key, range=qdrant.RangeFloat(**bounds)),
)


def _flag(key: str, value: bool) -> str:
    """A keyword for a boolean field: Qdrant Edge 0.9 matches no booleans."""
    return f"{key}={value}"


def _write_batch(path: Path, points: Sequence[Point], drop: Sequence[str]) -> None:
    """Record a batch in a file, which exists whole or not at all."""
    rows = [{"id": p.id, "words": p.words, "payload": p.payload, "vectors": sorted(p.vectors)} for p in points]
    arrays: dict[str, Any] = {
        f"{n}.{name}": vector for n, point in enumerate(points) for name, vector in point.vectors.items()
    }
    buffer = io.BytesIO()
    text: Any = np.array(json.dumps({"points": rows, "drop": list(drop)}))
    np.savez(buffer, batch=text, **arrays)
    scratch = path.with_suffix(".tmp")
    with scratch.open("wb") as file:
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def _read_batch(path: Path) -> tuple[list[Point], list[str]]:
    with np.load(path) as file:
        batch = json.loads(str(file["batch"]))
        points = [
            Point(row["id"], {name: file[f"{n}.{name}"] for name in row["vectors"]}, row["words"], row["payload"])
            for n, row in enumerate(batch["points"])
        ]
    return points, batch["drop"]


class _SharedLock:
    """Many readers or one writer. A waiting writer goes before new readers. After ``ended`` is set, readers fail."""

    def __init__(self) -> None:
        self.ended = False
        self._changed = threading.Condition()
        self._readers = 0
        self._writers = 0  # waiting or at work
        self._writing = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._writers)
            if self.ended:
                raise Closed("another collection has taken the place of the one that was asked; ask again")
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._writers += 1
            self._changed.wait_for(lambda: not self._readers and not self._writing)
            self._writing = True
        try:
            yield
        finally:
            with self._changed:
                self._writers -= 1
                self._writing = False
                self._changed.notify_all()
