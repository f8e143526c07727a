"""Run MLPerf LoadGen, whose schedule, clock and verdict come from MLCommons, against the server.

    python -m benchmarks.loadgen                                  drawn scenes, a short run
    python -m benchmarks.loadgen --photos DIR --type mug --full   your photos, with MLPerf's minimum durations
    python -m benchmarks.loadgen --rate 20 --latency 250          set the target of the Server scenario

Every query is one photo for ``product_image``; the server forms the batches.

    SingleStream   sends a photo when the one before is answered
    Offline        sends all photos at once
    Server         sends photos by a Poisson schedule; 99 % of the answers must arrive within a bound

LoadGen says VALID or INVALID, and build/bench/loadgen keeps its logs. The benchmark also tests for caching, like
MLPerf's TEST04: no model may have a response cache, and a photo that is sent again and again must not be answered
faster than photos that were never sent before.

The exit code is 1 if a scenario is INVALID, a request failed, or repeated photos are faster.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
PERCENTILES = ("50.00", "90.00", "95.00", "99.00", "99.90")
FULL_SECONDS, FULL_OFFLINE_SAMPLES = 600.0, 24_576
SHORT_SECONDS = {"SingleStream": 10.0, "Offline": 15.0, "Server": 30.0}
MIN_QUERIES = {"SingleStream": 100, "Server": 662}
"""MLPerf asks for 100 queries in Server too. Its early stopping needs 662, of which one may be late."""
RATES = ("result_completed_samples_per_sec", "result_samples_per_second", "result_qps_with_loadgen_overhead")
"""The keys of the throughput, which each scenario names differently."""
UNMET = {
    "result_perf_constraints_met": "more than 1 % of the answers took longer than the bound",
    "result_min_duration_met": "min_duration was not reached",
    "result_min_queries_met": "min_query_count was not reached",
    "early_stopping_met": "early stopping",
}
PATIENT = Retry(max_tokens=1e6)
"""LoadGen has no refusals: a refused request is sent again, and its latency counts from the first time."""
TOLERANCE = 0.1
"""How much faster TEST04 lets repeated photos be."""
PAIRS, CHECKED = 3, 48
"""Turns of the test for caching, and photos in each."""
Row = dict[str, Any]
"""The figures of one scenario, by the names that the table and the report show."""


class System:
    """The client as LoadGen's system under test, with a limited number of threads.

    A query waits while no thread is free, and its latency includes that time.
    """

    def __init__(self, client: Client, concurrency: int) -> None:
        self.client = client
        self.concurrency = concurrency
        self.failures: list[str] = []

    def run(self, photos: Sequence[Sample], settings: lg.TestSettings, folder: Path) -> dict[str, Any]:
        """Let LoadGen send the photos, and read its detailed log."""
        folder.mkdir(parents=True, exist_ok=True)
        output = lg.LogOutputSettings()
        output.outdir = str(folder)
        logs = lg.LogSettings()
        logs.log_output, logs.enable_trace = output, False
        with ThreadPoolExecutor(self.concurrency) as pool:

            def issue(samples: Sequence[lg.QuerySample]) -> None:
                for sample in samples:
                    pool.submit(self._answer, sample.id, *photos[sample.index])

            system = lg.ConstructSUT(issue, lambda: None)
            # The photos are in memory already, so there is nothing to load.
            library = lg.ConstructQSL(len(photos), len(photos), lambda _: None, lambda _: None)
            try:
                # The empty name keeps LoadGen from reading an audit.config in the current folder.
                lg.StartTestWithLogSettings(system, library, settings, logs, "")
            finally:
                lg.DestroyQSL(library)
                lg.DestroySUT(system)
        return read_log(folder)

    def measure_rate(self, photos: Sequence[Sample]) -> float:
        """Photos per second without LoadGen."""
        begin = perf_counter()
        with ThreadPoolExecutor(self.concurrency) as pool:
            list(pool.map(lambda photo: self.client.embed_images(*photo), photos))
        return len(photos) / (perf_counter() - begin)

    def _answer(self, query: int, file: bytes, product_type: str) -> None:
        try:
            found = self.client.embed_images(file, product_type)
        except VlclipError as error:
            self.failures.append(f"{type(error).__name__}: {error}")
            # LoadGen has no failures either, and would wait for this answer forever.
            lg.QuerySamplesComplete([lg.QuerySampleResponse(query, 0, 0)])
            return
        if found.status[0] > Status.WHOLE_IMAGE:
            self.failures.append(f"a photo has the status {Status(found.status[0]).name}")
        # LoadGen reads the memory during this call, so `found` lives long enough.
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
    """LoadGen's detailed log by key, with its errors under ``errors``."""
    values: dict[str, Any] = {"errors": []}
    with (folder / "mlperf_log_detail.txt").open() as log:
        for line in log:
            entry = json.loads(line.removeprefix(":::MLLOG "))
            values[entry["key"]] = entry["value"]
            if entry["metadata"]["is_error"]:
                values["errors"].append(f"{entry['key']}: {entry['value']}")
    return values


def row_of(scenario: str, log: Mapping[str, Any], failures: Sequence[str], target: str) -> Row:
    """LoadGen's figures and verdict of a scenario. A failed request makes the scenario INVALID."""
    reasons = [text for key, text in UNMET.items() if log.get(key) is False]
    words = [log.get("result_invalid_reason", "")]
    if log.get("early_stopping_met") is False:
        words.append(log.get("early_stopping_result", ""))
    reasons += [" ".join(text.replace(" * ", " ").split()).rstrip(".") for text in words if text.strip()]
    reasons += log["errors"]
    if failures:
        reasons.append(f"{len(failures)} requests failed, the first with {failures[0]}")
    return {
        "LoadGen says": "VALID" if log["result_validity"] == "VALID" and not failures else "INVALID",
        "samples": log["effective_min_sample_count"] if scenario == "Offline" else log["result_query_count"],
        "samples/s": round(next(log[key] for key in RATES if key in log), 2),
        **{
            f"p{float(place):g} ms": round(log[f"result_{place}_percentile_latency_ns"] / 1e6, 2)
            for place in PERCENTILES
        },
        "target": target,
        "reasons": "; ".join(reasons),
    }


def run_scenarios(
    system: System,
    photos: Sequence[Sample],
    out: Path,
    seconds: Mapping[str, float],
    *,
    rate: float | None,
    latency_ms: float | None,
    seed: int,
) -> dict[str, Row]:
    """Run the scenarios of ``seconds``, the minimum durations.

    Without a rate and a bound, those of Server follow from Offline's rate and SingleStream's median latency.
    """
    offline_samples = min(FULL_OFFLINE_SAMPLES, len(photos))
    rows: dict[str, Row] = {}
    for scenario, length in seconds.items():
        settings = settings_of(scenario, length, MIN_QUERIES.get(scenario, offline_samples), seed)
        target = "" if length >= FULL_SECONDS else f"min_duration {length:g} s instead of {FULL_SECONDS:g} s"
        if scenario == "Offline":
            # LoadGen draws all queries in advance from this rate. If the system is faster, the run is shorter.
            settings.offline_expected_qps = 1.5 * system.measure_rate(photos)
        if scenario == "Server":
            rate = rate or 0.5 * rows["Offline"]["samples/s"]
            latency_ms = latency_ms or 12 * rows["SingleStream"]["p50 ms"]
            set_target(settings, rate, latency_ms)
            target = f"{rate:.1f}/s, 99 % within {latency_ms:g} ms" + (target and f"; {target}")
        system.failures.clear()
        log = system.run(photos, settings, out / scenario)
        rows[scenario] = row_of(scenario, log, system.failures, target)
    return rows


def set_target(settings: lg.TestSettings, rate: float, latency_ms: float) -> None:
    settings.server_target_qps = rate
    settings.server_target_latency_ns = round(1e6 * latency_ms)
    settings.server_target_latency_percentile = 0.99


def find_caches(url: str) -> list[str]:
    """The models whose answers Triton may cache, among ``product_image`` and its steps."""
    with triton.InferenceServerClient(url) as server:
        config = server.get_model_config("product_image").config
        steps = [server.get_model_config(step.model_name).config for step in config.ensemble_scheduling.step]
    return [model.name for model in (config, *steps) if model.response_cache.enable]


def compare_repeats(system: System, photos: Sequence[Sample], folder: Path) -> dict[str, Any]:
    """Run SingleStream in turns: with photos that were never sent before, and with one photo again and again.

    The repeated photos are of median size, so that each costs what a photo costs.
    """
    photos = sorted(photos, key=lambda photo: len(photo[0]))
    middle = (len(photos) - PAIRS) // 2
    repeated, unique = photos[middle : middle + PAIRS], photos[:middle] + photos[middle + PAIRS :]
    count = min(CHECKED, len(unique) // PAIRS)
    ms: dict[str, list[float]] = {"unique": [], "same": []}
    for pair in range(PAIRS):
        turns = {"unique": unique[pair::PAIRS][:count], "same": [repeated[pair]]}
        for kind in sorted(turns, reverse=pair % 2 == 0):
            settings = settings_of("SingleStream", 0, count, pair)
            settings.performance_issue_unique = kind == "unique"
            settings.performance_issue_same = kind == "same"
            log = system.run(turns[kind], settings, folder / f"{kind}-{pair + 1}")
            ms[kind].append(log["result_50.00_percentile_latency_ns"] / 1e6)
    return {"photos": count, **judge_repeats(ms["unique"], ms["same"])}


def judge_repeats(unique_ms: Sequence[float], same_ms: Sequence[float]) -> dict[str, Any]:
    """Compare the median latencies of the turns. The spread of the unique turns says how much is noise."""
    median = statistics.median(unique_ms)
    noise = (max(unique_ms) - min(unique_ms)) / median
    ratio = statistics.median(same / unique for same, unique in zip(same_ms, unique_ms, strict=True))
    allowed = 1 - min(0.5, max(TOLERANCE, noise))
    same = statistics.median(same_ms)
    return {"unique_ms": median, "same_ms": same, "ratio": ratio, "allowed": allowed, "held": ratio >= allowed}


def describe(check: Mapping[str, Any]) -> str:
    return (
        f"A photo sent {check['photos']} times takes {check['same_ms']:.1f} ms, photos never sent before "
        f"{check['unique_ms']:.1f} ms; ratio {check['ratio']:.2f}, expected at least {check['allowed']:.2f}."
    )


def faults_of(rows: Mapping[str, Row], check: Mapping[str, Any], caches: Sequence[str]) -> list[str]:
    """A sentence for each fault."""
    faults = [
        f"{scenario} is INVALID: {row['reasons']}." for scenario, row in rows.items() if row["LoadGen says"] != "VALID"
    ]
    if not check["held"]:
        faults.append(f"Repeated photos are faster, so something caches. {describe(check)}")
    if caches:
        faults.append(f"Triton may cache the answers of {', '.join(caches)}: disable response_cache in their configs.")
    return faults


def show(rows: Mapping[str, Row], check: Mapping[str, Any]) -> None:
    console = Console()
    table = Table(title="MLPerf LoadGen, one photo a query")
    table.add_column("scenario", no_wrap=True)
    columns = ("LoadGen says", "samples", "samples/s", "p50 ms", "p90 ms", "p99 ms")
    for column in columns:
        table.add_column(column, justify="right")
    for scenario, row in rows.items():
        table.add_row(scenario, *(str(row[column]) for column in columns))
    console.print(table)
    for scenario, row in rows.items():
        if row["target"]:
            console.print(f"{scenario}: {row['target']}")
    console.print(describe(check))


def main() -> None:
    parser = parser_of("loadgen", __doc__)
    add_options(parser)
    add = parser.add_argument
    add("--count", type=int, default=160, help="number of scenes to draw (%(default)s)")
    add("--seed", type=int, default=29, help="seed of the scenes, the samples and the schedule (%(default)s)")
    add("--rate", type=float, help="photos per second of Server (default: half of Offline's rate)")
    add("--latency", type=float, help="bound of Server's p99 in ms (default: 12 times the median of SingleStream)")
    add("--seconds", type=float, help="minimum duration of each scenario (default: 10, 15 and 30)")
    add("--full", action="store_true", help="use MLPerf's minimum duration, 10 minutes for each scenario")
    add("--concurrency", type=int, default=32, help="maximum number of requests in flight (%(default)s)")
    add("--out", type=Path, default=OUT, help="folder of the logs and figures (%(default)s)")
    args = parser.parse_args()
    photos = list(dict.fromkeys(load_samples(args.photos, args.type, args.count, args.seed)))
    if len(photos) < 8 * PAIRS:
        sys.exit(f"{len(photos)} different photos, expected at least {8 * PAIRS} to test for caching")
    override = FULL_SECONDS if args.full else args.seconds
    seconds = {scenario: override or short for scenario, short in SHORT_SECONDS.items()}
    with served(args.url) as url, Client(url, retry=PATIENT, timeout=600) as client:
        caches = find_caches(url)
        system = System(client, args.concurrency)
        # The test for caching needs photos that the server has not seen.
        warm_up, fresh = photos[:PAIRS], photos[PAIRS:]
        system.measure_rate(warm_up * 8)
        check = compare_repeats(system, fresh, args.out / "repeats")
        rows = run_scenarios(system, photos, args.out, seconds, rate=args.rate, latency_ms=args.latency, seed=args.seed)
    show(rows, check)
    faults = faults_of(rows, check, caches)
    keep({"scenarios": rows, "repeats": check, "faults": faults}, args.json or args.out / "loadgen.json")
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
