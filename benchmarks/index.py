"""Measure the embedded index at scale: build, memory, disk, searches, recall and changes, from 10,000 vectors on.

    python -m benchmarks.index                          up to 1,000,000 vectors of 512
    python -m benchmarks.index --sizes 10000 50000      a short run

The vectors are drawn from a mixture: 50 product types are clusters, within which looks vary in 32 directions, and there
is noise in all directions. Queries are drawn from the same mixture. The models are not involved. Each size is measured
with FP32 vectors and with INT8 vectors that are rescored, in a process of its own, in these steps:

    build      write all points through the class of the shop, and build the graphs; then open the index anew
    search     one thread: the least ef with a recall@10 of at least 0.98 against exact search; then latencies
    filtered   the same within a product type
    threads    the same searches by several threads at once
    changes    searches while another thread inserts and deletes points

Figures are written to FOLDER/index.json after each step. The same command continues a run that was interrupted. The
vectors are kept in FOLDER too (2 GB for 1,000,000), each index until it has been measured.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.index_report import plot, table
from benchmarks.machine import machine
from benchmarks.target import parser_of
from search.edge import EdgeIndex
from search.index import IMAGE, Leg, Point, Question, Vector, Where, point_id

SIZES = (10_000, 100_000, 300_000, 1_000_000)
DIMENSION, TYPES, AXES, BLOCK = 512, 50, 32, 1000
LOOKS, NOISE = 0.8, 0.3
"""Lengths of what is added to the centre of a type, which has the length 1: a look and noise."""
SEED, QUERIES = 2027, 1
"""QUERIES is the seed of the queries; the seeds of blocks are multiples of BLOCK."""
TOP = 10
EFS = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
WANTED = 0.98
"""The recall@10 that ef is chosen for."""
BATCH = 1000
CHANGED = 64
"""Points that are inserted, and deleted, in each batch beside searches."""
Rows = npt.NDArray[np.int64]
Note = Callable[..., None]


def mixture(seed: int, count: int) -> tuple[Vector, Rows]:
    """``count`` unit vectors [N, D] of the mixture, and their types [N]."""
    fixed, rng = np.random.default_rng(SEED), np.random.default_rng([SEED, seed])
    centres = _unit(fixed.normal(size=(TYPES, DIMENSION)))
    axes = _unit(fixed.normal(size=(AXES, DIMENSION)))
    types = rng.integers(TYPES, size=count)
    looks = _unit(rng.normal(size=(count, AXES)) @ axes)
    noise = _unit(rng.normal(size=(count, DIMENSION)))
    return _unit(centres[types] + LOOKS * looks + NOISE * noise).astype(np.float32), types


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def draw(folder: Path, size: int) -> None:
    """Draw ``size`` vectors into vectors.npy and their types into types.npy, unless enough are there."""
    file = folder / "vectors.npy"
    if file.exists() and len(np.load(file, mmap_mode="r")) >= size:
        return
    scratch = folder / "vectors.tmp"
    vectors = np.lib.format.open_memmap(scratch, "w+", np.float32, (size, DIMENSION))
    types = np.empty(size, np.int64)
    for start in range(0, size, BLOCK):
        vectors[start : start + BLOCK], types[start : start + BLOCK] = mixture(start, BLOCK)
    vectors.flush()
    np.save(folder / "types.npy", types)
    scratch.replace(file)


def exact(vectors: Vector, types: Rows, queries: Vector, wanted: Rows | None = None) -> Rows:
    """The rows of the TOP nearest vectors of each query, [Q, TOP]; of its type only, if ``wanted`` types are given."""
    best = np.full((len(queries), TOP), -np.inf, np.float32)
    rows = np.zeros((len(queries), TOP), np.int64)
    for start in range(0, len(vectors), 50_000):
        cosine = queries @ vectors[start : start + 50_000].T
        if wanted is not None:
            cosine[wanted[:, None] != types[start : start + 50_000]] = -np.inf
        top = np.argpartition(-cosine, min(TOP, cosine.shape[1] - 1), axis=1)[:, :TOP]
        all_best = np.concatenate([best, np.take_along_axis(cosine, top, 1)], axis=1)
        all_rows = np.concatenate([rows, top + start], axis=1)
        order = np.argsort(-all_best, axis=1)[:, :TOP]
        best, rows = np.take_along_axis(all_best, order, 1), np.take_along_axis(all_rows, order, 1)
    return rows


def point(name: str, kind: int, vector: Vector) -> Point:
    """A point as a shop has it, with a short payload."""
    payload = {
        "product": name, "product_type": f"type {kind}", "title": name, "content": name, "duplicate": name, "bands": [],
        "attributes": {}, "version": "drawn",
    }  # fmt: skip
    return Point(point_id(name, 0), {IMAGE: vector}, "", payload)


class Memory:
    """The memory of this process, sampled: the most that is its own, and the most with mapped files."""

    def __init__(self) -> None:
        self.own = self.mapped_too = 0

    @contextmanager
    def watched(self) -> Iterator[Memory]:
        """Sample until the block ends."""
        self.own = self.mapped_too = 0
        done = threading.Event()

        def sample() -> None:
            while not done.wait(0.1):
                self._look()

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield self
        finally:
            done.set()
            thread.join()
            self._look()

    def _look(self) -> None:
        lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
        kib = {words[0]: int(words[1]) for words in lines if words[0] in ("RssAnon:", "VmRSS:")}
        self.own = max(self.own, 1024 * kib["RssAnon:"])
        self.mapped_too = max(self.mapped_too, 1024 * kib["VmRSS:"])


def measure(folder: Path, size: int, quantized: bool, threads: int, seconds: float, note: Note) -> None:
    """Measure an index of the first ``size`` vectors; ``note`` keeps the figures of each step."""
    place = folder / "index"
    shutil.rmtree(place, ignore_errors=True)
    memory = Memory()
    with memory.watched():
        note(build=build(folder, place, size, quantized), memory_of_build=vars(memory))
    with np.load(folder / f"queries-{size}.npz") as file:
        queries, types, nearest, nearest_of_type = (file[name] for name in ("queries", "types", "all", "of_type"))
    where = [{"product_type": f"type {kind}"} for kind in types]
    with memory.watched():
        tried = []
        for ef in EFS:
            start = time.perf_counter()
            index = EdgeIndex(place, ef=ef)
            opened = time.perf_counter() - start
            search(index, queries[:100])  # warm-up
            tried.append({"ef": ef, **figures(*search(index, queries), nearest)})
            note(tried=tried, open_s=opened)
            if tried[-1]["recall"] >= WANTED or ef == EFS[-1]:
                break
            index.close()
        note(search=tried[-1])
        note(filtered=figures(*search(index, queries, where), nearest_of_type))
        begin = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            parts = [pool.submit(search, index, np.roll(queries, n * 17, 0)) for n in range(threads)]
            ms = np.concatenate([part.result()[1] for part in parts])
        note(threads=latencies(ms) | {"threads": threads, "per_second": len(ms) / (time.perf_counter() - begin)})
        note(memory_of_search=vars(memory))
        note(changes=change(index, size, queries, nearest, seconds))
        begin = time.perf_counter()
        index.optimize()
        note(optimize_after_changes_s=time.perf_counter() - begin)
    index.close()
    shutil.rmtree(place)
    note(done=True)


def build(folder: Path, place: Path, size: int, quantized: bool) -> dict[str, float]:
    """Build the index. Seconds to write and to build the graphs, and its bytes on disk."""
    vectors, types = np.load(folder / "vectors.npy", mmap_mode="r"), np.load(folder / "types.npy")
    begin = time.perf_counter()
    index = EdgeIndex(place, dimension=DIMENSION, vectors=(IMAGE,), quantized=quantized)
    for start in range(0, size, BATCH):
        rows = range(start, min(start + BATCH, size))
        index.write([point(f"p{n}", int(types[n]), np.array(vectors[n])) for n in rows])
    written = time.perf_counter()
    index.optimize()
    built = time.perf_counter()
    index.close()
    files = [path.stat() for path in place.rglob("*") if path.is_file()]
    return {
        "write_s": written - begin,
        "optimize_s": built - written,
        "disk": 512 * sum(one.st_blocks for one in files),
    }


def search(index: EdgeIndex, queries: Vector, where: Sequence[Where] = ()) -> tuple[list[list[str]], Any]:
    """The products that the index finds for each query, and the milliseconds of each."""
    found, ms = [], []
    for n, vector in enumerate(queries):
        question = Question([Leg(IMAGE, vector)], where[n] if where else {}, limit=TOP)
        begin = time.perf_counter()
        hits = index.ask(question)
        ms.append(1e3 * (time.perf_counter() - begin))
        found.append([hit.payload["product"] for hit in hits])
    return found, np.array(ms)


def latencies(ms: npt.NDArray[np.float64]) -> dict[str, float]:
    """The median and the 99th percentile."""
    return {"p50": float(np.percentile(ms, 50)), "p99": float(np.percentile(ms, 99)), "searches": len(ms)}


def figures(found: list[list[str]], ms: npt.NDArray[np.float64], nearest: Rows) -> dict[str, float]:
    """Latencies, and the share of the nearest vectors that were found."""
    share = [len({*one} & {f"p{n}" for n in rows}) / TOP for one, rows in zip(found, nearest.tolist(), strict=True)]
    return latencies(ms) | {"recall": float(np.mean(share))}


def change(index: EdgeIndex, size: int, queries: Vector, nearest: Rows, seconds: float) -> dict[str, float]:
    """Search while another thread inserts points, far from all others, and deletes them again."""
    end = time.perf_counter() + seconds
    batches = 0

    def write() -> None:
        nonlocal batches
        rng = np.random.default_rng(SEED)
        old: list[str] = []
        while not batches or time.perf_counter() < end:
            vectors = _unit(rng.normal(size=(CHANGED, DIMENSION))).astype(np.float32)
            new = [point(f"new {batches}-{n}", 0, vector) for n, vector in enumerate(vectors)]
            index.write(new, old)
            old = [one.id for one in new]
            batches += 1

    writer = threading.Thread(target=write)
    writer.start()
    found: list[list[str]] = []
    ms = []
    while writer.is_alive():
        products, took = search(index, queries[len(found) % len(queries)][None])
        found += products
        ms.append(took)
    writer.join()
    right = index.count() == size + CHANGED
    rows = nearest[np.arange(len(found)) % len(queries)]
    return figures(found, np.concatenate(ms), rows) | {
        "inserted_per_second": batches * CHANGED / seconds,
        "deleted_per_second": (batches - 1) * CHANGED / seconds,
        "count_is_right": right,
    }


def keep(file: Path, run: dict[str, Any], **found: Any) -> None:
    """Write the figures of a step of a run to the JSON file."""
    report = json.loads(file.read_text())
    runs = report["runs"]
    mine = next((one for one in runs if all(one[key] == run[key] for key in run)), None)
    if mine is None:
        mine = dict(run)
        runs.append(mine)
    mine |= found
    scratch = file.with_suffix(".tmp")
    scratch.write_text(json.dumps(report, indent=2) + "\n")
    scratch.replace(file)


def _measure_and_keep(folder: Path, file: Path, run: dict[str, Any], threads: int, seconds: float) -> None:
    measure(folder, run["vectors"], run["int8"], threads, seconds, lambda **found: keep(file, run, **found))


def prepare(folder: Path, size: int, count: int) -> None:
    """Draw what a size needs: its vectors, its queries and their exact answers."""
    draw(folder, size)
    vectors, types = np.load(folder / "vectors.npy", mmap_mode="r")[:size], np.load(folder / "types.npy")[:size]
    queries, kinds = mixture(QUERIES, count)
    nearest, of_type = exact(vectors, types, queries), exact(vectors, types, queries, kinds)
    np.savez(folder / f"queries-{size}.npz", queries=queries, types=kinds, all=nearest, of_type=of_type)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("index", __doc__, figures=False, url=False)
    add = parser.add_argument
    add(
        "--sizes",
        type=int,
        nargs="+",
        default=SIZES,
        metavar="N",
        help="numbers of vectors, multiples of 1,000 (10,000, 100,000, 300,000 and 1,000,000)",
    )
    add("--queries", type=int, default=1000, help="number of queries (%(default)s)")
    add("--threads", type=int, default=8, help="threads that search at once (%(default)s)")
    add("--seconds", type=float, default=20.0, help="seconds of changes beside searches (%(default)s)")
    add("--out", type=Path, default=Path("build/index-benchmark"), metavar="FOLDER", help="(%(default)s)")
    args = parser.parse_args(arguments)
    if wrong := [size for size in args.sizes if size <= 0 or size % BLOCK]:
        parser.error(f"--sizes: expected multiples of {BLOCK}, got {wrong[0]}")
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "index.json"
    if not file.exists():
        file.write_text(json.dumps({"machine": machine(), "dimension": DIMENSION, "runs": []}))
    clean = multiprocessing.get_context("spawn")
    draw(args.out, max(args.sizes))
    for size in sorted(args.sizes):
        for int8 in (False, True):
            run = {"vectors": size, "int8": int8}
            done = [
                one for one in json.loads(file.read_text())["runs"] if one.get("done") and run.items() <= one.items()
            ]
            if done:
                continue
            prepare(args.out, size, args.queries)
            print(f"measuring {size:,} vectors{', INT8' if int8 else ''} …", flush=True)
            child = clean.Process(target=_measure_and_keep, args=(args.out, file, run, args.threads, args.seconds))
            child.start()
            child.join()
            if child.exitcode:
                raise SystemExit(
                    f"error: the measurement ended with exit code {child.exitcode}; {file} has what it found"
                )
    report = json.loads(file.read_text())
    plot(report, args.out / "index.png")
    (args.out / "index.md").write_text(table(report))
    print(table(report))
    print(f"{file}, and a table and a plot beside it")


if __name__ == "__main__":
    main()
