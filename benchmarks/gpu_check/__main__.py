"""Prove the GPU path on this machine: `make gpu-check`.

    python -m benchmarks.gpu_check                          export mini and base in FP16, and check everything
    python -m benchmarks.gpu_check --models DIR             check the models of `python -m export --out DIR`
    python -m benchmarks.gpu_check --device cpu             the same steps on the CPU, with the mini models

It names what the machine has. Then, for each set of models, it compares every graph on CUDA with the CPU, starts a
server, and compares its answers with the CPU's. With base, or with models of your own, it also measures the chain in
one process, and the server's throughput, latency and memory, kills a model's process under load, and measures each part
alone. Where a full tritonserver is on the PATH, with its backends, ngc-onnxruntime-cuda and ngc-tensorrt are checked as
well.

Each step is a process of its own with a time limit, so that the next one runs whatever happens. Everything ends within
--minutes. OUT/gpu.json and OUT/gpu.md are written after each step, and the logs and figures of each step lie beside
them, so that a check that is cut off leaves what it has measured. The exit code is 0 if every step passed.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gpu_check.notes import read_notes
from benchmarks.gpu_check.report import Result, ratios, write
from benchmarks.target import parser_of
from serving.paths import REPOSITORIES
from serving.server.gpu import gpu_memories

OUT = Path("build/gpu")
STEP = "benchmarks.gpu_check.step"
EXPORTS = {
    "mini": ("--detector", "mini", "--encoder", "mini"),
    "base": ("--detector", "yolo-world-s", "--encoder", "ViT-B-32", "--random-weights"),
}
SECONDS = {"chain": 16, "parts": 26, "speed": 42, "memory": 60, "dead process": 15}
"""How long a step measures on a GPU. On a CPU it takes a fifth of that."""
LIMITS = {"export": 150, "server": 120, "reference": 90}
"""Seconds after which a step is ended, beyond what it measures."""
LIMIT = 60
CUDA = "cuda"


@dataclass
class Check:
    """A run of the steps. ``ends`` is on the clock of ``time.monotonic``."""

    device: str
    out: Path
    ends: float
    results: list[Result] = field(default_factory=list)

    def run(self, name: str, model: str, *options: str) -> bool:
        """Run a step. Returns whether it passed."""
        notes = self.out / f"{slug(model)}-{slug(name)}.json"
        notes.unlink(missing_ok=True)
        seconds = SECONDS.get(name, 0) * (1.0 if self.device == CUDA else 0.2)
        command = [sys.executable, "-m", STEP, name, "--notes", str(notes), "--seconds", str(seconds), *options]
        common = ["--device", self.device, "--photos", str(self.out / "photos"), "--out", str(self.folder(model))]
        return self.guard(name, model, [*command, *common], seconds + LIMITS.get(name, LIMIT), notes)

    def guard(self, name: str, model: str, command: Sequence[str], limit: float, notes: Path | None = None) -> bool:
        """Run a command in its own process group, and record its outcome."""
        begin, log = time.monotonic(), self.out / f"{slug(model)}-{slug(name)}.log"
        limit = min(limit, self.ends - begin)
        if limit < 1:
            return self.record(Result(name, model, "not run: the time is used up"))
        with log.open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                code = process.wait(limit)
                outcome = "ok" if code == 0 else f"exit code {code}: {last_line(log)}"
            except subprocess.TimeoutExpired:
                outcome = f"ended after {limit:.0f} s: {last_line(log)}"
            finally:
                end(process)
        found = read_notes(notes) if notes else {}
        return self.record(Result(name, model, outcome, time.monotonic() - begin, found))

    def record(self, result: Result) -> bool:
        self.results.append(result)
        write(self.out, self.results)
        verdict = "; ".join(result.wrong) or result.outcome
        print(f"{result.seconds:5.0f} s  {result.name:<13}{result.model:<24}{verdict}", flush=True)
        return result.passed

    def folder(self, model: str) -> Path:
        """Where the steps of the same models share files."""
        folder = self.out / slug(model.split(",")[0])
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def server(self, model: str, repository: Path, profile: str) -> Iterator[tuple[str, ...] | None]:
        """Serve the models: options for steps with a server, or None if it did not start."""
        begin, name = time.monotonic(), f"{model}, {profile}"
        log, triton_log = self.out / f"{slug(name)}-server.log", self.out / f"{slug(name)}-triton.log"
        ports = [part for port in ("grpc", "http", "metrics") for part in (f"--{port}-port", "0")]
        command = [sys.executable, "-m", "serving", "start", "--model-repository", str(repository), *ports]
        command += ["--profile", profile, "--log", str(triton_log), *triton_of(profile)]
        with log.open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            url, until = None, min(begin + LIMITS["server"], self.ends)
            while url is None and process.poll() is None and time.monotonic() < until:
                time.sleep(0.2)
                url = re.search(r"gRPC +(\S+)", log.read_text())
            outcome = "ok" if url else f"does not serve after {time.monotonic() - begin:.0f} s: {last_line(log)}"
            self.record(Result("server", name, outcome, time.monotonic() - begin))
            yield ("--url", url[1], "--pid", str(process.pid)) if url else None
        finally:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            end(process)


def slug(text: str) -> str:
    return re.sub(r"\W+", "-", text).strip("-")


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"{lines[-1][:300]} (see {log})" if lines else f"it printed nothing (see {log})"


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def triton_of(profile: str) -> list[str]:
    """The option that takes the embedded server where a full installation is on the PATH as well."""
    wheel = Path(sys.prefix, "tritonserver")
    return ["--triton", str(wheel)] if profile.startswith("embedded") and wheel.is_dir() else []


def check_models(check: Check, model: str, repository: Path, profile: str, *, in_full: bool) -> None:
    """All steps of one set of models. Without ``in_full`` only those that compare."""
    here = ("--repository", str(repository))
    if not check.run("reference", model, *here):
        return
    check.run("graphs", model, *here)
    if not in_full:
        serve(check, model, repository, profile, ("answers",))
        return
    check.run("chain", model, *here)
    serve(check, model, repository, profile, ("answers", "speed", "memory", "dead process"))
    check.run("parts", model, *here)


def serve(check: Check, model: str, repository: Path, profile: str, steps: Sequence[str]) -> None:
    with check.server(model, repository, profile) as server:
        for step in steps if server else ():
            check.run(step, f"{model}, {profile}", "--repository", str(repository), *(server or ()))


def export(check: Check, model: str, format: str = "onnx") -> Path | None:
    """Export models in FP16 as the user would. Returns their repository, or None if that failed."""
    repository = check.out / f"models-{model}-{format}"
    options = (*EXPORTS[model], "--precision", "fp16", "--format", format, "--out", str(repository))
    is_done = check.guard("export", model, [sys.executable, "-m", "export", *options], LIMITS["export"])
    return repository if is_done else None


def check_all(check: Check, models: Sequence[Path]) -> None:
    check.run("machine", "", "--repository", str(REPOSITORIES[0]))
    if not check.run("photos", "", "--repository", str(REPOSITORIES[0])):
        return
    if check.device != CUDA:
        if models or check.guard("install", "mini", [sys.executable, "-m", "export.install", "--if-missing"], LIMIT):
            check_models(check, "mini", models[0] if models else REPOSITORIES[0], "embedded-cpu", in_full=True)
        return
    sets = {path.name: path for path in models}
    for model in sets or EXPORTS:
        repository = sets.get(model) or export(check, model)
        if repository:
            check_models(check, model, repository, "embedded-gpu", in_full=model != "mini")
            check_container(check, model, repository, is_ours=not sets)


def check_container(check: Check, model: str, repository: Path, *, is_ours: bool) -> None:
    """The profiles for NVIDIA's container, where it runs this."""
    backends = check.results[0].found.get("its backends", [])
    if "onnxruntime" in backends:
        serve(check, model, repository, "ngc-onnxruntime-cuda", ("answers", "speed"))
    if "tensorrt" in backends and is_ours and (plans := export(check, model, "tensorrt")):
        serve(check, model, plans, "ngc-tensorrt", ("answers", "speed"))


def main(argv: Sequence[str] | None = None) -> int:
    parser = parser_of("gpu_check", __doc__, figures=False, url=False)
    add = parser.add_argument
    add("--device", choices=[CUDA, "cpu"], default=CUDA, help="(%(default)s)")
    add("--models", type=Path, action="append", default=[], metavar="DIR", help="models to check, instead of exports")
    add("--out", type=Path, default=OUT, metavar="DIR", help="folder of the results (%(default)s)")
    add("--minutes", type=float, default=7.8, help="time for everything (%(default)s)")
    args = parser.parse_args(argv)
    if args.device == CUDA and not gpu_memories():
        parser.error("the driver shows no NVIDIA GPU (`nvidia-smi` shows it): use --device cpu (make: DEVICE=cpu)")
    args.out.mkdir(parents=True, exist_ok=True)
    # The end leaves time to stop a server.
    check = Check(args.device, args.out, time.monotonic() + 60 * args.minutes - 15)
    check_all(check, args.models)
    failed = [result for result in check.results if not result.passed]
    for model, ratio in ratios(check.results).items():
        print(f"{model}: served / in process {ratio:.2f}")
    print(f"{len(failed)} of {len(check.results)} steps failed. Results: {args.out / 'gpu.md'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
