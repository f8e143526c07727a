"""MLPerf LoadGen over the client: a second harness, whose schedule, clock and verdict are MLCommons'.

    python -m benchmarks.loadgen                                  scenes of the synthetic catalogue, a short run
    python -m benchmarks.loadgen --photos DIR --type mug --full   photos of yours, with MLPerf's own minimums
    python -m benchmarks.loadgen --rate 20 --latency 250          what the Server scenario asks, instead of finding it

SingleStream sends a photo when the one before is answered, Offline all at once, Server by a Poisson schedule, with 99 %
of the answers within a bound. Every query is one photo to ``product_image``; batches are formed by the server. LoadGen
says VALID or INVALID, and its logs are kept beside the figures, in build/bench/loadgen. Before that, in the spirit of
MLPerf's TEST04: no model caches answers, and one photo asked again and again is not answered faster than photos that
are all new.

The exit code is 1 where a scenario is INVALID, a request failed, or repeats are faster.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import mlperf_loadgen as lg
import tritonclient.grpc as triton
from rich.console import Console
from rich.table import Table

from benchmarks.photos import Sample, add_options, load_samples
from benchmarks.target import keep, parser_of, served
from vlclip import Client, Retry, Status, VlclipError

OUT = Path("build/bench/loadgen")
SCENARIOS = ("SingleStream", "Offline", "Server")
PERCENTILES = ("50.00", "90.00", "95.00", "99.00", "99.90")
FULL_SECONDS, FULL_OFFLINE_SAMPLES = 600.0, 24_576
SHORT_SECONDS = {"SingleStream": 10.0, "Offline": 15.0, "Server": 30.0}
MIN_QUERIES = {"SingleStream": 100, "Server": 662}
"""Of Server, MLPerf asks for 100 too, and its early stopping for 662 if one of them may be late."""
RATES = ("result_completed_samples_per_sec", "result_samples_per_second", "result_qps_with_loadgen_overhead")
"""What the scenarios call their throughput."""
PATIENT = Retry(max_tokens=1e6)
"""LoadGen knows no refusal: what is refused is sent again, and its latency counts from the first time."""
TOLERANCE = 0.1
"""How much faster TEST04 lets repeats be."""
PAIRS, CHECKED = 3, 48
"""Turns of the check for caches, and photos of a turn."""


class System:
    """What LoadGen asks: the client, by a bounded number of threads. A query that waits for a thread grows older."""

    def __init__(self, client: Client, concurrency: int) -> None:
        self.client = client
        self.concurrency = concurrency
        self.failures: list[str] = []

    def run(self, photos: Sequence[Sample], settings: lg.TestSettings, folder: Path) -> dict[str, Any]:
        """Have LoadGen ask about the photos; what its detailed log says, by key."""
        folder.mkdir(parents=True, exist_ok=True)
        output = lg.LogOutputSettings()
        output.outdir = str(folder)
        logs = lg.LogSettings()
        logs.log_output, logs.enable_trace = output, False
        with ThreadPoolExecutor(self.concurrency) as pool:

            def issue(samples: Sequence[lg.QuerySample]) -> None:
                for sample in samples:
                    pool.submit(self._answer, sample.id, *photos[sample.index])

            asked = lg.ConstructSUT(issue, lambda: None)
            # The photos are in memory from the start: loading has nothing to do.
            library = lg.ConstructQSL(len(photos), len(photos), lambda _: None, lambda _: None)
            try:
                # No audit.config that happens to lie in this folder is read.
                lg.StartTestWithLogSettings(asked, library, settings, logs, "")
            finally:
                lg.DestroyQSL(library)
                lg.DestroySUT(asked)
        return read_log(folder)

    def ask(self, photos: Sequence[Sample]) -> float:
        """Photos answered a second, outside of LoadGen."""
        begun = perf_counter()
        with ThreadPoolExecutor(self.concurrency) as pool:
            list(pool.map(lambda photo: self.client.embed_images(*photo), photos))
        return len(photos) / (perf_counter() - begun)

    def _answer(self, query: int, file: bytes, product_type: str) -> None:
        try:
            found = self.client.embed_images(file, product_type)
        except VlclipError as error:
            self.failures.append(f"{type(error).__name__}: {error}")
            # LoadGen knows no failures, and would wait for this answer for ever.
            lg.QuerySamplesComplete([lg.QuerySampleResponse(query, 0, 0)])
            return
        if found.status[0] > Status.WHOLE_IMAGE:
            self.failures.append(f"a photo has the status {Status(found.status[0]).name}")
        # LoadGen reads the memory within this call, so `found` lives long enough.
        embedding = found.embedding
        lg.QuerySamplesComplete([lg.QuerySampleResponse(query, embedding.ctypes.data, embedding.nbytes)])


def settings_of(scenario: str, seconds: float, queries: int, seed: int) -> lg.TestSettings:
    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, scenario)
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = round(1e3 * seconds)
    settings.min_query_count = queries
    settings.qsl_rng_seed = settings.sample_index_rng_seed = settings.schedule_rng_seed = seed
    return settings


def read_log(folder: Path) -> dict[str, Any]:
    """LoadGen's detailed log by key; its errors under ``errors``."""
    values: dict[str, Any] = {"errors": []}
    with (folder / "mlperf_log_detail.txt").open() as log:
        for line in log:
            entry = json.loads(line.removeprefix(":::MLLOG "))
            values[entry["key"]] = entry["value"]
            if entry["metadata"]["is_error"]:
                values["errors"].append(f"{entry['key']}: {entry['value']}")
    return values


@dataclass(frozen=True)
class Result:
    """What LoadGen says of a scenario."""

    scenario: str
    valid: bool
    reasons: Sequence[str]
    """Why it is not VALID, in LoadGen's words."""
    samples: int
    samples_per_second: float
    latency_ms: dict[str, float]
    asked: str
    """What the Server scenario was to hold, and what was shortened."""

    @classmethod
    def of(cls, scenario: str, log: dict[str, Any], failures: Sequence[str], asked: str) -> Result:
        unmet = {
            "result_perf_constraints_met": "more than 1 % of the answers took longer than the bound",
            "result_min_duration_met": "min_duration was not reached",
            "result_min_queries_met": "min_query_count was not reached",
            "early_stopping_met": "early stopping",
        }
        reasons = [text for key, text in unmet.items() if log.get(key) is False]
        said = [log.get("result_invalid_reason", "")]
        if log.get("early_stopping_met") is False:
            said.append(log.get("early_stopping_result", ""))
        reasons += [" ".join(text.replace(" * ", " ").split()).rstrip(".") for text in said if text.strip()]
        reasons += log["errors"]
        if failures:
            reasons.append(f"{len(failures)} requests failed, the first with {failures[0]}")
        rate = next(log[key] for key in RATES if key in log)
        return cls(
            scenario,
            log["result_validity"] == "VALID" and not failures,
            reasons,
            log["effective_min_sample_count"] if scenario == "Offline" else log["result_query_count"],
            rate,
            {f"{float(place):g}": log[f"result_{place}_percentile_latency_ns"] / 1e6 for place in PERCENTILES},
            asked,
        )


def find_caches(url: str) -> list[str]:
    """``product_image`` and the models that it chains, of those the ones whose answers Triton may cache."""
    with triton.InferenceServerClient(url) as server:
        config = server.get_model_config("product_image").config
        steps = [server.get_model_config(step.model_name).config for step in config.ensemble_scheduling.step]
    return [model.name for model in (config, *steps) if model.response_cache.enable]


def compare_repeats(system: System, photos: Sequence[Sample], folder: Path) -> dict[str, Any]:
    """SingleStream in turns: photos that were never sent before, and one photo again and again; medians of latencies.

    The repeated ones are those of middle size in bytes, so that they cost what a photo costs.
    """
    photos = sorted(photos, key=lambda photo: len(photo[0]))
    middle = (len(photos) - PAIRS) // 2
    repeated, unique = photos[middle : middle + PAIRS], photos[:middle] + photos[middle + PAIRS :]
    count = min(CHECKED, len(unique) // PAIRS)
    took: dict[str, list[float]] = {"unique": [], "same": []}
    for pair in range(PAIRS):
        turns = {"unique": unique[pair::PAIRS][:count], "same": [repeated[pair]]}
        for kind in sorted(turns, reverse=pair % 2 == 0):
            settings = settings_of("SingleStream", 0, count, pair)
            settings.performance_issue_unique = kind == "unique"
            settings.performance_issue_same = kind == "same"
            log = system.run(turns[kind], settings, folder / f"{kind}-{pair + 1}")
            took[kind].append(log["result_50.00_percentile_latency_ns"] / 1e6)
    ratio = statistics.median(same / other for same, other in zip(took["same"], took["unique"], strict=True))
    noise = (max(took["unique"]) - min(took["unique"])) / statistics.median(took["unique"])
    allowed = 1 - min(0.5, max(TOLERANCE, noise))
    return {
        "photos": count,
        "unique_ms": statistics.median(took["unique"]),
        "same_ms": statistics.median(took["same"]),
        "ratio": ratio,
        "allowed": allowed,
        "held": ratio >= allowed,
    }


def run_scenarios(
    system: System,
    photos: Sequence[Sample],
    out: Path,
    *,
    seconds: float | None,
    full: bool,
    rate: float | None,
    latency_ms: float | None,
    seed: int,
) -> list[Result]:
    """All three. What the Server scenario is to hold comes from the others, unless it is given."""
    offline_samples = min(FULL_OFFLINE_SAMPLES, len(photos))
    results: dict[str, Result] = {}
    for scenario in SCENARIOS:
        length = FULL_SECONDS if full else seconds or SHORT_SECONDS[scenario]
        settings = settings_of(scenario, length, MIN_QUERIES.get(scenario, offline_samples), seed)
        asked = "" if length >= FULL_SECONDS else f"min_duration {length:g} s, of MLPerf's {FULL_SECONDS:g} s"
        if scenario == "Offline":
            # LoadGen draws all queries ahead by this; where the system is faster, it ends before min_duration.
            settings.offline_expected_qps = 1.5 * system.ask(photos)
        if scenario == "Server":
            rate = rate or 0.5 * results["Offline"].samples_per_second
            latency_ms = latency_ms or 12 * results["SingleStream"].latency_ms["50"]
            settings.server_target_qps = rate
            settings.server_target_latency_ns = round(1e6 * latency_ms)
            settings.server_target_latency_percentile = 0.99
            asked = f"{rate:.1f}/s, 99 % within {latency_ms:.0f} ms" + (asked and f"; {asked}")
        system.failures.clear()
        log = system.run(photos, settings, out / scenario)
        results[scenario] = Result.of(scenario, log, system.failures, asked)
    return list(results.values())


def show(results: Sequence[Result], check: dict[str, Any]) -> None:
    console = Console()
    table = Table(title="MLPerf LoadGen, one photo a query; latencies in ms")
    for column in ("scenario", "LoadGen says"):
        table.add_column(column)
    for column in ("samples", "samples/s", "p50", "p90", "p99"):
        table.add_column(column, justify="right")
    for result in results:
        latencies = (f"{result.latency_ms[place]:.1f}" for place in ("50", "90", "99"))
        verdict = "VALID" if result.valid else "INVALID"
        table.add_row(result.scenario, verdict, str(result.samples), f"{result.samples_per_second:.1f}", *latencies)
    console.print(table)
    for result in results:
        if result.asked:
            console.print(f"{result.scenario}: {result.asked}")
    console.print(sentence_of(check))


def sentence_of(check: dict[str, Any]) -> str:
    return (
        f"Repeats: a photo sent {check['photos']} times takes {check['same_ms']:.1f} ms, photos never sent before "
        f"{check['unique_ms']:.1f} ms; ratio {check['ratio']:.2f}, at least {check['allowed']:.2f} is asked."
    )


def broken(results: Sequence[Result], check: dict[str, Any], caches: Sequence[str]) -> list[str]:
    """A sentence for each thing that does not hold."""
    said = [f"{result.scenario} is INVALID: {'; '.join(result.reasons)}." for result in results if not result.valid]
    if not check["held"]:
        said.append(f"Repeats are faster than unique samples: something caches. {sentence_of(check)}")
    if caches:
        said.append(f"Triton may cache the answers of {', '.join(caches)}: turn response_cache off in their configs.")
    return said


def report_of(results: Sequence[Result], check: dict[str, Any], wrong: Sequence[str]) -> dict[str, Any]:
    """What is kept, for the report too."""
    scenarios = {
        result.scenario: {
            "LoadGen says": "VALID" if result.valid else "INVALID",
            "samples": result.samples,
            "samples/s": round(result.samples_per_second, 2),
            **{f"p{place} ms": round(value, 2) for place, value in result.latency_ms.items()},
            "asked": result.asked,
            "reasons": "; ".join(result.reasons),
        }
        for result in results
    }
    return {"scenarios": scenarios, "repeats": check, "broken": wrong}


def main() -> None:
    parser = parser_of("loadgen", __doc__)
    add_options(parser)
    parser.add_argument("--count", type=int, default=160, help="scenes to draw (%(default)s)")
    parser.add_argument("--seed", type=int, default=29, help="of scenes, samples and schedule (%(default)s)")
    parser.add_argument("--rate", type=float, help="photos a second of Server (default: half of what Offline reaches)")
    parser.add_argument(
        "--latency", type=float, help="bound of Server's p99 in ms (default: 12 times SingleStream's p50)"
    )
    parser.add_argument("--seconds", type=float, help="min_duration of each scenario (default: 10, 15, 30)")
    parser.add_argument("--full", action="store_true", help="MLPerf's own min_duration, 10 minutes each")
    parser.add_argument("--concurrency", type=int, default=32, help="requests in flight at most (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="where logs and figures go (%(default)s)")
    args = parser.parse_args()
    photos = list(dict(load_samples(args.photos, args.type, args.count, args.seed)).items())  # all different
    if len(photos) < 8 * PAIRS:
        sys.exit(f"{len(photos)} different photos are too few to tell unique from repeated: give {8 * PAIRS} or more")
    with served(args.url) as url, Client(url, retry=PATIENT, timeout=600) as client:
        caches = find_caches(url)
        system = System(client, args.concurrency)
        # Not all: what is left has to be new to the server.
        warm, fresh = photos[:PAIRS], photos[PAIRS:]
        system.ask(warm * 8)
        check = compare_repeats(system, fresh, args.out / "repeats")
        results = run_scenarios(
            system,
            photos,
            args.out,
            seconds=args.seconds,
            full=args.full,
            rate=args.rate,
            latency_ms=args.latency,
            seed=args.seed,
        )
    show(results, check)
    wrong = broken(results, check, caches)
    keep(report_of(results, check, wrong), args.json or args.out / "loadgen.json")
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
