"""Find the settings that embed the most photos a second on this machine within a latency bound, and write a profile.

    python -m benchmarks.tune --slo p99=500ms                        10 minutes, into serving/profiles/tuned
    python -m benchmarks.tune --slo p99=500ms --minutes 30           continues the last run (build/tune)
    python -m serving start --profile tuned

    delay        microseconds that a graph waits for more requests to batch
    preferred    preferred batch size of every graph; 0 for none
    instances    instances of every graph
    threads      threads of every instance of a graph
    decoders     processes that decode

Each trial starts a server with a candidate and sends single photos in a closed loop of --concurrency users: a warm-up,
then several turns, whose median counts. Optuna proposes the candidates; the first one is the current profile (--base).
Finally the best candidate and the current profile are compared: both servers run and are loaded in turns, A B B A. The
candidate is written only if it keeps the bound and is better by more than the turns differ among themselves.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import polars as pl
from google.protobuf import text_format
from rich.console import Console
from rich.table import Table

from benchmarks.callers import Callers
from benchmarks.engine import Engine, User, now
from benchmarks.machine import machine
from benchmarks.photos import Sample, load_samples
from benchmarks.runs import OK, Request, frame
from benchmarks.slo import Slo, parse_all, percentile
from benchmarks.target import parser_of
from benchmarks.traffic import Ask
from search.measures import bootstrap
from serving.errors import ServerError, SetupError
from serving.paths import REPOSITORIES, ROOT
from serving.repository.folders import find_home
from serving.repository.manifest import ARTEFACTS, read_served
from serving.repository.profiles import EMBEDDED_CPU, PROFILES, Profile, files_of, read_config, read_fragment
from serving.repository.specs import LEAVES, PIPELINES
from serving.server.server import Server

GRAPHS = [leaf for leaf, artefact in ARTEFACTS.items() if artefact == "model.onnx"]
STUDY = ROOT / "build" / "tune" / "study.db"
WRITTEN_BY = "# Written by python -m benchmarks.tune"
SEED = 0
SEARCH_PART = 0.7
"""Part of the time for the search. The rest is for the comparison."""
MIN_PAIRS = 8
MAX_PAIRS = 40
WARM_UP_SECONDS, DEADLINE = 1.0, 60.0

Settings = dict[str, int]
Turn = Callable[[], "Result"]


@dataclass(frozen=True)
class Result:
    """The requests of some turns, all of which were answered."""

    requests: pl.DataFrame
    seconds: float

    @property
    def rate(self) -> float:
        """Photos a second."""
        return len(self.requests) / self.seconds

    def latency(self, slo: Slo) -> float:
        """The percentile of ``slo``, in seconds."""
        return percentile(self.requests, float(slo.measure[1:]))


@dataclass(frozen=True)
class Bench:
    """The models, the load, and the bound."""

    repositories: Sequence[Path]
    photos: Sequence[Sample]
    slo: Slo
    concurrency: int
    seconds: float
    """Seconds of a turn."""
    turns: int
    """Turns of a trial."""

    @contextmanager
    def served(self, profile: Profile) -> Iterator[Turn]:
        """Start a server and warm it up. Yields a function that loads it for a turn.

        Raises ServerError or SetupError; so does the function if a request fails.
        """
        with (
            Server.start(self.repositories, profile=profile) as server,
            closing(Callers(server.grpc_url, DEADLINE)) as callers,
        ):

            def turn(seconds: float = self.seconds) -> Result:
                requests: list[Request] = []
                begin = now()
                users = [User(callers.send, ends=begin + seconds)] * self.concurrency
                Engine(self.ask, lambda request, _: requests.append(request)).send_as_users(users, count())
                if failed := [request.outcome for request in requests if request.outcome != OK]:
                    raise ServerError(f"{len(failed)} of {len(requests)} requests failed, the first with {failed[0]}")
                return Result(frame(requests), now() - begin)

            turn(min(WARM_UP_SECONDS, self.seconds))
            yield turn

    def ask(self, number: int) -> Ask:
        photo, product_type = self.photos[number % len(self.photos)]
        return Ask("vlclip", "product_image", (product_type,), (photo,))


def space_of(current: Settings) -> dict[str, list[int]]:
    """The values of each setting. They include the current ones."""
    cores = len(os.sched_getaffinity(0))
    powers = [1 << i for i in range(cores.bit_length()) if 1 << i <= cores]
    space = {
        "delay": [0, 500, 1000, 2000, 5000],
        "preferred": [0, 4, 8, 16],
        "instances": sorted({1, 2, *powers[:-1]}),
        "threads": sorted({*powers, cores}),
        "decoders": sorted({1, 2, *powers[:-1]}),
    }
    return {name: sorted({*values, current[name]}) for name, values in space.items()}


def settings_of(profile: Profile, repository: Path) -> Settings:
    """The settings of a profile. ``detect``, the slowest graph, stands for all. Raises SetupError."""
    detect, decode = (read_config(repository / leaf, profile) for leaf in ("detect", "decode"))
    batching, threads = detect.dynamic_batching, detect.parameters["intra_op_thread_count"].string_value
    return {
        "delay": batching.max_queue_delay_microseconds,
        "preferred": max(batching.preferred_batch_size, default=0),
        "instances": sum(group.count for group in detect.instance_group) or 1,
        "threads": int(threads or len(os.sched_getaffinity(0))),
        "decoders": sum(group.count for group in decode.instance_group) or 1,
    }


def write_profile(folder: Path, settings: Settings, base: Profile, remark: str = "") -> None:
    """Write the profile ``base`` with these settings into ``folder``. Raises SetupError."""
    fragments = {model: read_fragment(model, base) for model in (*LEAVES, *PIPELINES)}
    for leaf in (*GRAPHS, "decode"):
        fragment = fragments[leaf]
        group = fragment.instance_group[0] if fragment.instance_group else fragment.instance_group.add()
        del fragment.instance_group[1:]
        if leaf == "decode":
            group.count = settings["decoders"]
            continue
        group.count = settings["instances"]
        fragment.parameters["intra_op_thread_count"].string_value = str(settings["threads"])
        fragment.dynamic_batching.max_queue_delay_microseconds = settings["delay"]
        preferred = [settings["preferred"]] if settings["preferred"] else []
        fragment.dynamic_batching.preferred_batch_size[:] = preferred
    folder.mkdir(parents=True, exist_ok=True)
    for model, fragment in fragments.items():
        if not fragment.ListFields():
            continue
        (folder / f"{model}.pbtxt").write_text(remark + text_format.MessageToString(fragment))


def search(study: optuna.Study, bench: Bench, base: Profile, seconds: float, trials: int | None) -> None:
    """Try candidates for ``seconds``, or until the study has as many trials as ``trials``."""
    current = settings_of(base, bench.repositories[0])
    space = space_of(current)
    left = None if trials is None else max(0, trials - len(study.trials))
    if not study.trials:
        study.enqueue_trial(current)

    def objective(trial: optuna.Trial) -> float:
        settings = {name: trial.suggest_categorical(name, values) for name, values in space.items()}
        with tempfile.TemporaryDirectory(prefix="vlclip-") as folder:
            write_profile(Path(folder), settings, base)
            results: list[Result] = []
            with bench.served(folder) as turn:
                for step in range(bench.turns):
                    results.append(turn())
                    trial.report(median_rate(results), step)
                    if trial.should_prune():
                        raise optuna.TrialPruned
        latency = pooled(results).latency(bench.slo)
        trial.set_user_attr("latency", latency)
        trial.set_constraint(bench.slo.measure, latency - bench.slo.limit)
        return median_rate(results)

    def print_trial(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        outcome = outcome_of(trial, bench.slo)
        print(f"trial {trial.number:>3}  {outcome:<42}  {show(trial.params)}", file=sys.stderr, flush=True)

    study.optimize(objective, n_trials=left, timeout=seconds, catch=(ServerError, SetupError), callbacks=[print_trial])


def open_study(file: Path, name: str) -> optuna.Study:
    """Open the study of this name in an SQLite file, or create it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{file}",
        study_name=name,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
    )
    # A study that continues must not draw the same candidates again.
    study.sampler = optuna.samplers.TPESampler(seed=SEED + len(study.trials), n_startup_trials=8)
    return study


def compare(bench: Bench, base: Profile, candidate: Profile, pairs: int) -> tuple[list[Result], list[Result]]:
    """The results of both servers, which run at the same time and take turns."""
    results: tuple[list[Result], list[Result]] = ([], [])
    with ExitStack() as stack:
        turns = [stack.enter_context(bench.served(profile)) for profile in (base, candidate)]
        for pair in range(pairs):
            for side in (0, 1) if pair % 2 == 0 else (1, 0):
                results[side].append(turns[side]())
    return results


def judge(before: Sequence[Result], after: Sequence[Result], slo: Slo) -> tuple[bool, str]:
    """Whether the results ``after`` are better than those ``before``, in pairs, by more than chance; and a sentence."""
    old, new = (pooled(results).latency(slo) for results in (before, after))
    low, high = bootstrap([b.rate / a.rate for a, b in zip(before, after, strict=True)], np.median)
    faster_low, _ = bootstrap([a.latency(slo) / b.latency(slo) for a, b in zip(before, after, strict=True)], np.median)
    rates = (
        f"{median_rate(after):.1f} photos a second against {median_rate(before):.1f} ({low:.3f} to {high:.3f} times)"
    )
    latencies = f"{slo.measure} {1e3 * new:.0f} ms against {1e3 * old:.0f} ms"
    if new > slo.limit:
        return False, f"it does not hold {slo.text} in the comparison: {latencies}; {rates}"
    if old > slo.limit and faster_low > 1:
        return True, f"it holds {slo.text}, which the current profile does not: {latencies}; {rates}"
    if low > 1:
        return True, f"{rates}; {latencies}"
    return False, f"it is not better by more than chance: {rates}; {latencies}"


def pooled(results: Sequence[Result]) -> Result:
    return Result(pl.concat(result.requests for result in results), sum(result.seconds for result in results))


def median_rate(results: Sequence[Result]) -> float:
    return statistics.median(result.rate for result in results)


def show(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def outcome_of(trial: optuna.trial.FrozenTrial, slo: Slo) -> str:
    if trial.value is None or trial.state != optuna.trial.TrialState.COMPLETE:
        return trial.state.name.lower()
    latency = trial.user_attrs["latency"]
    too_slow = "" if latency <= slo.limit else ", over the bound"
    return f"{trial.value:.1f} a second, {slo.measure} {1e3 * latency:.0f} ms{too_slow}"


def table_of(study: optuna.Study, slo: Slo) -> Table:
    names = list(study.trials[0].params)
    table = Table("trial", "photos/s", slo.measure, *names, title=f"Trials, the fastest first; {slo.text}")
    for trial in sorted(completed(study), key=lambda trial: trial.value or 0.0, reverse=True):
        latency = trial.user_attrs["latency"]
        cells = (f"{trial.number}", f"{trial.value:.1f}", f"{1e3 * latency:.0f} ms")
        style = "" if latency <= slo.limit else "dim"
        table.add_row(*cells, *(str(trial.params[name]) for name in names), style=style)
    return table


def completed(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(states=[optuna.trial.TrialState.COMPLETE])


def best_of(study: optuna.Study, slo: Slo) -> optuna.trial.FrozenTrial | None:
    """The fastest trial within the bound."""
    fit = [trial for trial in completed(study) if trial.user_attrs["latency"] <= slo.limit]
    return max(fit, key=lambda trial: trial.value or 0.0, default=None)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of("tune", __doc__, figures=False, url=False)
    models, ensembles = REPOSITORIES
    add = parser.add_argument
    add("--slo", required=True, help="latency bound: p99=500ms, or another percentile")
    add("--minutes", type=float, default=10.0, help="minutes for the search and the comparison (%(default)s)")
    add("--trials", type=int, help="trials at most, including those of earlier runs")
    add("--out", type=Path, default=PROFILES / "tuned", metavar="DIR", help="the profile to write (%(default)s)")
    add("--base", default=EMBEDDED_CPU, metavar="NAME", help="the current profile (%(default)s)")
    add("--photos", type=Path, metavar="DIR", help="folder of photos to send (drawn photos)")
    add("--concurrency", type=int, default=8, help="users of the closed loop (%(default)s)")
    add("--turns", type=int, default=3, help="turns of a trial (%(default)s)")
    add("--seconds", type=float, default=2.0, help="seconds of a turn (%(default)s)")
    add("--study", type=Path, default=STUDY, metavar="FILE", help="file that keeps the trials (%(default)s)")
    add("--model-repository", type=Path, default=models, metavar="DIR", help="the models (model_repository/)")
    add("--ensembles", type=Path, default=ensembles, metavar="DIR", help="the pipelines (ensembles/)")
    parsed = parser.parse_args(arguments)
    try:
        (parsed.slo,) = parse_all(parsed.slo)
    except ValueError as error:
        parser.error(str(error))
    if not parsed.slo.measure.startswith("p"):
        parser.error(f"--slo must bound a percentile, such as p99=500ms, not {parsed.slo.measure}")
    if os.environ.get("VLCLIP_ORT_THREADS"):
        parser.error("VLCLIP_ORT_THREADS overrides the threads of every candidate: unset it")
    if any(not file.read_text().startswith(WRITTEN_BY) for file in parsed.out.glob("*.pbtxt")):
        parser.error(f"{parsed.out} contains a profile that was written by hand: choose another --out")
    return parsed


def study_of(args: argparse.Namespace, bench: Bench) -> optuna.Study:
    """The study of these models, machine, load and base. Trials with another base are not comparable."""
    home = find_home(bench.repositories)
    manifest = read_served(home) if home else None
    base = hashlib.sha256(b"".join(file.read_bytes() for file in files_of(args.base))).hexdigest()[:8]
    name = (
        f"{manifest.models if manifest else args.model_repository}, {len(os.sched_getaffinity(0))} cores, "
        f"from {args.base} ({base}), {args.photos or 'drawn photos'}, {args.concurrency} users, {bench.slo.text}"
    )
    study = open_study(args.study, name)
    print(f"{name}: {len(study.trials)} trials so far, in {args.study}", flush=True)
    return study


def tune(args: argparse.Namespace, bench: Bench) -> str:
    """Search, compare and write the profile. Returns the result. Raises SetupError or ServerError."""
    slo, study = bench.slo, study_of(args, bench)
    search(study, bench, args.base, 60 * args.minutes * SEARCH_PART, args.trials)
    if not study.trials:
        raise SetupError("there was no time for a trial: give more --minutes")
    Console().print(table_of(study, slo))
    best = best_of(study, slo)
    if best is None:
        raise SetupError(f"nothing is written: no trial held {slo.text}")
    if best.params == settings_of(args.base, bench.repositories[0]):
        return f"Nothing is written: no trial within {slo.text} was faster than {args.base} itself."
    pairs = round(60 * args.minutes * (1 - SEARCH_PART) / (2 * args.seconds))
    pairs = min(max(pairs, MIN_PAIRS), MAX_PAIRS)
    print(f"Comparing trial {best.number} with {args.base}, {pairs} turns each", flush=True)
    with tempfile.TemporaryDirectory(prefix="vlclip-") as folder:
        write_profile(Path(folder), best.params, args.base)
        accepted, sentence = judge(*compare(bench, args.base, folder, pairs), slo)
    result = f"Trial {best.number} ({show(best.params)}): {sentence}."
    if not accepted:
        return f"Nothing is written. {result}"
    here = machine()
    remark = f"{WRITTEN_BY} --slo {slo.text}, from {args.base}, on {here['cpu']}, {here['cores']} cores:\n"
    write_profile(args.out, best.params, args.base, f"{remark}# {sentence}.\n")
    is_ours = args.out.resolve().parent == PROFILES.resolve()
    served_as = shlex.quote(args.out.name if is_ours else os.path.relpath(args.out))
    return f"{result}\nWritten to {args.out}. Serve it: python -m serving start --profile {served_as}"


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_arguments(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    photos = load_samples(args.photos, "", 32, 5)
    repositories = [args.model_repository, args.ensembles]
    bench = Bench(repositories, photos, args.slo, args.concurrency, args.seconds, args.turns)
    try:
        print(tune(args, bench))
    except (ServerError, SetupError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. The trials are kept, and the next run continues with them.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
