"""What the client costs: ``vlclip`` beside a bare loop of tritonclient, with the same items and as many in flight.

    python -m benchmarks.overhead --json out.json

Both ask the same server in turns, a short while each, and the ratio of their throughputs is taken turn by turn. The
loop does what people write first: it packs arrays, infers, and reads the outputs; nothing is retried, checked, or
bounded. With ``--no-server`` both ask a server that answers at once, so that only the clients are left to compare.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton
from rich.console import Console
from rich.table import Table
from tritonclient.grpc import service_pb2, service_pb2_grpc

from benchmarks.retrieval import draw_scenes
from benchmarks.target import keep, parser_of, served
from training.catalogue.items import TRAINED_TYPES
from vlclip import AsyncClient, Client

CONCURRENCY = 4
IMAGE_OUTPUTS = ["EMBEDDING", "BOX", "SCORE", "STATUS"]
Loop = Callable[[float], int]
"""(seconds) → items that were embedded in them"""


def bare_call(client: triton.InferenceServerClient, items: Sequence[str] | Sequence[bytes]) -> Any:
    """Texts by ``product_text``, images by ``product_image``."""
    texts = [item.encode() for item in items if isinstance(item, str)]
    pipeline, outputs = ("product_text", ["EMBEDDING"]) if texts else ("product_image", IMAGE_OUTPUTS)
    columns: dict[str, list[Any]] = {"IMAGE": [*items], "PRODUCT_TYPE": [b"mug"] * len(items)}
    if texts:
        columns = {"TEXT": texts}
    tensors = []
    for name, column in columns.items():
        data = np.array(column, object)[:, None]
        tensors.append(triton.InferInput(name, data.shape, "BYTES"))
        tensors[-1].set_data_from_numpy(data)
    answer = client.infer(pipeline, tensors, outputs=[triton.InferRequestedOutput(name) for name in outputs])
    return [answer.as_numpy(name) for name in outputs]


def our_call(client: Any, items: Sequence[str] | Sequence[bytes]) -> Any:
    return client.embed_texts(items) if isinstance(items[0], str) else client.embed_images(items, "mug")


def in_threads(call: Callable[[], Any], batch: int) -> Loop:
    """The call again and again, from several threads."""

    def loop(seconds: float) -> int:
        end = time.perf_counter() + seconds

        def work() -> int:
            done = 0
            while time.perf_counter() < end:
                call()
                done += batch
            return done

        with ThreadPoolExecutor(CONCURRENCY) as pool:
            return sum(future.result() for future in [pool.submit(work) for _ in range(CONCURRENCY)])

    return loop


class InLoop:
    """An event loop in a thread of its own, with an ``AsyncClient`` in it."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.client = AsyncClient(url)

    def repeat(self, call: Callable[[], Any], batch: int) -> Loop:
        async def work(end: float) -> int:
            done = 0
            while time.perf_counter() < end:
                await call()
                done += batch
            return done

        async def together(seconds: float) -> int:
            end = time.perf_counter() + seconds
            return sum(await asyncio.gather(*(work(end) for _ in range(CONCURRENCY))))

        return lambda seconds: asyncio.run_coroutine_threadsafe(together(seconds), self._loop).result()

    def __enter__(self) -> InLoop:
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.client.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def run(url: str, turns: int, seconds: float) -> dict[str, Any]:
    """Items a second and ratios to the bare loop: medians over turns."""
    photos = [photo.jpeg for photo in draw_scenes(32, 11, TRAINED_TYPES)]
    texts = [f"a photo of a {name}" for name in TRAINED_TYPES][:32]
    report: dict[str, Any] = {"concurrency": CONCURRENCY, "turns": turns}
    with ExitStack() as stack:
        client = stack.enter_context(Client(url))
        looped = stack.enter_context(InLoop(url))
        bare = triton.InferenceServerClient(url)
        stack.callback(bare.close)
        for what, batch in (("texts", 1), ("texts", 32), ("images", 1), ("images", 32)):
            items: Any = (texts if what == "texts" else photos)[:batch]
            loops = {
                "tritonclient": in_threads(partial(bare_call, bare, items), batch),
                "Client": in_threads(partial(our_call, client, items), batch),
                "AsyncClient": looped.repeat(partial(our_call, looped.client, items), batch),
            }
            report[f"{what} by {batch}"] = compare(loops, turns, seconds)
    return report


def compare(loops: dict[str, Loop], turns: int, seconds: float) -> dict[str, float]:
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(turns + 1):
        for name, loop in loops.items():
            begun = time.perf_counter()
            rate = loop(seconds) / (time.perf_counter() - begun)
            if turn:  # the first one warms up
                rates[name].append(rate)
    found = {f"{name}, items/s": statistics.median(rate) for name, rate in rates.items()}
    for name in list(rates)[1:]:
        ratios = [mine / theirs for mine, theirs in zip(rates[name], rates["tritonclient"], strict=True)]
        found[f"{name} / tritonclient"] = statistics.median(ratios)
    return found


class Instant(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers any batch with embeddings of 512 zeros, at once."""

    def ModelConfig(self, request: Any, context: Any) -> Any:
        response = service_pb2.ModelConfigResponse()
        response.config.max_batch_size = 64
        return response

    def ModelInfer(self, request: Any, context: Any) -> Any:
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        n = request.inputs[0].shape[0]
        for output in request.outputs:
            width = {"EMBEDDING": 512, "BOX": 4}.get(output.name, 1)
            datatype = "INT32" if output.name == "STATUS" else "FP32"
            response.outputs.add(name=output.name, datatype=datatype, shape=[n, width])
            response.raw_output_contents.append(bytes(4 * n * width))
        return response


def instant() -> tuple[Any, str]:
    server = grpc.server(ThreadPoolExecutor(CONCURRENCY), options=[("grpc.max_receive_message_length", -1)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Instant(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"


def show(report: dict[str, Any]) -> None:
    table = Table(title=f"{report['concurrency']} requests in flight, medians of {report['turns']} turns")
    table.add_column("")
    for column in ("tritonclient", "Client", "ratio", "AsyncClient", "ratio"):
        table.add_column(column, justify="right")
    for name, found in report.items():
        if isinstance(found, dict):
            cells = [f"{found['tritonclient, items/s']:.0f}/s"]
            for kind in ("Client", "AsyncClient"):
                cells += [f"{found[f'{kind}, items/s']:.0f}/s", f"{found[f'{kind} / tritonclient']:.2f}"]
            table.add_row(name, *cells)
    Console().print(table)


def main() -> None:
    parser = parser_of("overhead", __doc__)
    parser.add_argument("--turns", type=int, default=9, help="of each client (%(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn (%(default)s)")
    parser.add_argument("--no-server", action="store_true", help="ask a server that answers at once")
    args = parser.parse_args()
    if args.no_server:
        server, url = instant()
        report = run(url, args.turns, args.seconds)
        server.stop(None)
    else:
        with served(args.url) as url:
            report = run(url, args.turns, args.seconds)
    show(report)
    keep(report, args.json)


if __name__ == "__main__":
    main()
