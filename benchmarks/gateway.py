"""What the gateway adds to the embedding, on a drawn catalogue, with a server of its own.

    python -m benchmarks.gateway                   600 products in 1,000 scenes, as `make shop` draws them
    python -m benchmarks.gateway --products 60     a short try

Two things are measured, each in turns with what it is compared with, so that a busy machine slows both:

  text question   POST /v1/search with a text, and the client's embedding of the same text
  32 texts        POST /v1/embeddings with 32 texts, as OpenAI's client sends them, and the gRPC client

The figures are medians over rounds.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx
import uvicorn

from benchmarks.shop import draw
from benchmarks.target import keep, parser_of, served
from search.gateway.app import create_app
from search.gateway.guard import Settings
from search.records import Product, read
from search.shop import Shop
from search.store import FolderStore
from vlclip import Client

MOST_MS = 15.0
LEAST_SHARE = 0.9
BATCH = 32


@contextmanager
def running(shop: Shop, client: Client) -> Iterator[str]:
    """The address of a gateway."""
    app = create_app(shop, client, Settings())
    gateway = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=gateway.run)
    thread.start()
    try:
        while not gateway.started:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{gateway.servers[0].sockets[0].getsockname()[1]}"
    finally:
        gateway.should_exit = True
        thread.join()


def in_turns(rounds: int, *calls: Callable[[int], object]) -> list[list[float]]:
    """Milliseconds of each call in each round."""
    found: list[list[float]] = [[] for _ in calls]
    for number in range(rounds):
        for times, call in zip(found, calls, strict=True):
            started = time.perf_counter()
            call(number)
            times.append((time.perf_counter() - started) * 1000)
    return found


def measure(address: str, client: Client, texts: list[str], rounds: int) -> dict[str, float]:
    """The figures: medians in milliseconds, what the gateway adds, and its share of the client's throughput."""
    with httpx.Client(base_url=address, timeout=60) as http:

        def post(path: str, body: dict[str, object]) -> None:
            http.post(path, json=body).raise_for_status()

        def batch(number: int) -> list[str]:
            return [f"{texts[(number + n) % len(texts)]} {n}" for n in range(BATCH)]

        calls: tuple[Callable[[int], object], ...] = (
            lambda n: post("/v1/search", {"text": texts[n % len(texts)], "limit": 10}),
            lambda n: client.embed_texts([texts[n % len(texts)]]),
            lambda n: post("/v1/embeddings", {"input": batch(n), "encoding_format": "base64"}),
            lambda n: post("/v1/embeddings", {"input": batch(n), "encoding_format": "float"}),
            lambda n: client.embed_texts(batch(n)),
        )
        in_turns(max(3, rounds // 10), *calls)  # warm-up
        question, text, base64, floats, grpc = (median(times) for times in in_turns(rounds, *calls))
    return {
        "question_ms": question, "text_ms": text, "added_ms": question - text,
        "batch_base64_ms": base64, "batch_float_ms": floats, "batch_grpc_ms": grpc,
        "share_base64": grpc / base64, "share_float": grpc / floats,
    }  # fmt: skip


def main() -> int:
    """Measure, print the figures, and return 1 if one is not met."""
    parser = parser_of("gateway", __doc__)
    parser.add_argument("--products", type=int, default=600, help="products to draw (%(default)s)")
    parser.add_argument("--rounds", type=int, default=200, help="rounds of each comparison (%(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, served(args.url) as url, Client(url, timeout=300) as client:
        catalogue = draw(Path(folder), args.products, args.products * 5 // 3)
        products = [row for row in read(catalogue) if isinstance(row, Product)]
        shop = Shop(FolderStore(Path(folder) / "index"), client)
        shop.upsert(products)
        shop.served().optimize()
        with running(shop, client) as address:
            figures = measure(address, client, [product.title for product in products], args.rounds)
        shop.close()
    print(
        "A text question takes {question_ms:.1f} ms (p50), of which the embedding {text_ms:.1f}.\n"
        "  The gateway and the index add {added_ms:.1f} ms; at most {most:g} are allowed.\n"
        "{batch} texts at /v1/embeddings, as a share of the gRPC client's throughput ({batch_grpc_ms:.1f} ms):\n"
        "  {share_base64:.2f} as base64, which OpenAI's client asks for; at least {least:g} is expected.\n"
        "  {share_float:.2f} as numbers.".format(**figures, most=MOST_MS, least=LEAST_SHARE, batch=BATCH)
    )
    keep({"products": args.products, "rounds": args.rounds, **figures}, args.json)
    return 0 if figures["added_ms"] <= MOST_MS and figures["share_base64"] >= LEAST_SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
