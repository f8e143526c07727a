"""What happens when more comes than the server can do: goodput at twice the capacity, beside its peak below it.

    python -m benchmarks.overload --json out.json
    python -m benchmarks.overload --factors 0.5 0.7 0.9 2 4 --seconds 30

First the capacity is measured, by senders who wait for their answers. Then single photos are sent to ``product_image``
at multiples of it, at moments of a Poisson process drawn ahead, whether or not answers come; latency counts from the
scheduled moment. Goodput is answers a second within the deadline. What was not refused as too much, answered or late
has failed. Nothing is tried again, unless ``--retry``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.judge import percentiles
from benchmarks.photos import draw_scenes
from benchmarks.target import keep, parser_of
from serving.server.server import Server
from serving.server.stubs import find_stubs
from training.catalogue.scenes import Photo
from vlclip import AsyncClient, DeadlineError, OverloadedError, RequestError, Retry

SENDERS = 16
OUTCOMES = ("answered", "late", "refused", "failed")


async def capacity(client: AsyncClient, photos: Sequence[Photo], seconds: float) -> float:
    """Answers a second to senders who wait for each answer before they ask again."""
    end, answers = time.monotonic() + seconds, 0

    async def send(sender: int) -> None:
        nonlocal answers
        while time.monotonic() < end:
            photo = photos[(sender + answers) % len(photos)]
            try:
                await client.embed_images(photo.jpeg, photo.items[0].product_type, timeout=30)
                answers += 1
            except OverloadedError:
                await asyncio.sleep(0.05)

    begin = time.monotonic()
    await asyncio.gather(*(send(sender) for sender in range(SENDERS)))
    return answers / (time.monotonic() - begin)


async def overload(
    client: AsyncClient, photos: Sequence[Photo], rate: float, seconds: float, deadline: float, seed: int
) -> dict[str, Any]:
    """Send ``rate`` photos a second for some seconds; seconds are counted from the scheduled moments."""
    random = np.random.default_rng(seed)
    schedule = np.cumsum(random.exponential(1 / rate, int(rate * seconds)))
    took: dict[str, list[float]] = {outcome: [] for outcome in OUTCOMES}
    begin = time.monotonic()

    async def send(at: float, photo: Photo) -> None:
        left = begin + at + deadline - time.monotonic()
        try:
            if left <= 0:
                raise DeadlineError("the sender itself came too late")
            await client.embed_images(photo.jpeg, photo.items[0].product_type, timeout=left)
            outcome = "answered" if time.monotonic() - begin - at <= deadline else "late"
        except DeadlineError:
            outcome = "late"
        except OverloadedError:
            outcome = "refused"
        except RequestError:
            outcome = "failed"
        took[outcome].append(time.monotonic() - begin - at)

    tasks = []
    for i, at in enumerate(schedule):
        await asyncio.sleep(max(0.0, begin + at - time.monotonic()))
        tasks.append(asyncio.create_task(send(float(at), photos[i % len(photos)])))
    await asyncio.gather(*tasks)
    return {
        "rate": rate,
        "sent": len(schedule),
        **{outcome: len(times) for outcome, times in took.items()},
        "goodput": len(took["answered"]) / float(schedule[-1]),
        "answered_ms": percentiles_ms(took["answered"]),
        "refused_ms": percentiles_ms(took["refused"]),
    }


def percentiles_ms(seconds: list[float]) -> dict[str, float]:
    return dict(zip(("p50", "p99", "p100"), percentiles(seconds, (50, 99, 100)), strict=True)) if seconds else {}


def resident_mb(server: Server) -> float:
    """Of tritonserver and its models' processes, what each has for itself."""
    pids = [server.pid, *(stub.pid for stub in find_stubs(server.shm_prefix))]
    kilobytes = 0
    for pid in pids:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        kilobytes += int(lines["RssAnon"].split()[0])
    return kilobytes / 1024


async def measure(
    url: str, server: Server | None, factors: Sequence[float], seconds: float, deadline: float, retry: bool = False
) -> dict[str, Any]:
    """The capacity, and what becomes of loads that are multiples of it; ``server`` is asked for its memory."""
    photos = draw_scenes(20, 7)
    async with AsyncClient(url, retry=Retry() if retry else None) as client:
        await capacity(client, photos, 2.0)  # warms up
        most = await capacity(client, photos, seconds / 2)
        steps = []
        for factor in factors:
            before = resident_mb(server) if server else None
            step = await overload(client, photos, factor * most, seconds, deadline, seed=int(100 * factor))
            begin = time.monotonic()
            async with AsyncClient(url, timeout=30) as another:
                await another.embed_images(photos[0].jpeg, "mug")
            recovery_s = time.monotonic() - begin
            memory = [before, resident_mb(server) if server else None]
            steps.append({"factor": factor, **step, "recovery_s": recovery_s, "resident_mb": memory})
    peak = max((step["goodput"] for step in steps if step["factor"] <= 1), default=most)
    for step in steps:
        step["of_peak"] = step["goodput"] / peak
    return {"capacity": most, "deadline": deadline, "peak": peak, "steps": steps}


def show(report: dict[str, Any]) -> None:
    """Print a line for each rate."""
    table = Table(title=f"Answers within {report['deadline']:g} s; capacity {report['capacity']:.1f} photos a second")
    heads = (
        "load",
        "sent",
        "in time",
        "late",
        "refused",
        "failed",
        "goodput",
        "of peak",
        "answered p50, p99, longest",
        "refused p50, p99, longest",
    )
    for name in (*heads, "next answer", "memory"):
        table.add_column(name, justify="right")
    for step in report["steps"]:
        row = [f"{step['factor']:g}", *(str(step[name]) for name in ("sent", *OUTCOMES))]
        row += [f"{step['goodput']:.1f}/s", f"{step['of_peak']:.2f}"]
        row += [", ".join(f"{ms:.0f}" for ms in step[name].values()) for name in ("answered_ms", "refused_ms")]
        before, after = step["resident_mb"]
        row += [f"{step['recovery_s']:.2f} s", f"{before:.0f} → {after:.0f} MB" if before else ""]
        table.add_row(*row)
    Console(width=170).print(table)


def main() -> None:
    parser = parser_of("overload", __doc__)
    parser.add_argument("--factors", type=float, nargs="+", default=[0.6, 0.8, 1.0, 2.0], help="loads, of the capacity")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each load (%(default)s)")
    parser.add_argument("--deadline", type=float, default=4.0, help="seconds for an answer (%(default)s)")
    parser.add_argument("--retry", action="store_true", help="have the client try again what is refused")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        server = None if args.url else stack.enter_context(Server.start())
        url = server.grpc_url if server else args.url
        report = asyncio.run(measure(url, server, args.factors, args.seconds, args.deadline, args.retry))
    show(report)
    keep(report, args.json)


if __name__ == "__main__":
    main()
