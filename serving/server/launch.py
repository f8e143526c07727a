"""Starts tritonserver: the process, the guard that kills it if we are killed, and the wait for its first answers."""

from __future__ import annotations

import itertools
import os
import random
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from serving.errors import ServerError, ServingError, SetupError
from serving.repository.manifest import Manifest
from serving.repository.profiles import CONTAINER, EMBEDDED_CPU, Profile, find_unservable
from serving.repository.view import View
from serving.server.api import Api
from serving.server.embedded import assemble, is_embedded
from serving.server.gpu import gpu_options
from serving.server.limits import (
    FIRST_ANSWER_SECONDS,
    FIRST_STARTS,
    LOAD_SECONDS,
    LONGEST_RESTART_SECONDS,
    MARGIN_SECONDS,
    RESTART_SECONDS,
)
from serving.server.log import Log, report
from serving.server.options import Access, fixed_options, newer_options
from serving.server.stubs import SHARED_MEMORY, remove_stubs

# If we are killed, the pipe to this shell closes, and it kills Triton's process group and removes what that leaves.
# The kernel's PR_SET_PDEATHSIG cannot do this: it acts when the *thread* that started Triton ends.
GUARD = 'read -r _; kill -s KILL -- "-$0"; sleep 1; rm -rf "$1"* "$2"'


class Stopping(Exception):
    """The server is being stopped, which ends the work of the watcher."""


class RestartNeeded(Exception):
    """Triton must be restarted. ``str()`` says why."""


class Crashed(ServerError):
    """A signal killed Triton while it started. Unlike an exit code, a signal does not mean that it refuses its
    configuration: a request can crash it, or the kernel can kill it when the memory is full."""


@dataclass(frozen=True)
class Triton:
    """A running tritonserver and its guard. ``patience`` is a time-out in seconds, for loading a model again and for an
    answer."""

    process: subprocess.Popen[bytes]
    guard: subprocess.Popen[bytes]
    shm_prefix: str
    patience: float = MARGIN_SECONDS

    def end(self) -> None:
        """Kill the process with its stubs. Calling it twice is harmless."""
        self.process.kill()
        self.process.wait()
        remove_stubs(self.shm_prefix)
        self.guard.kill()
        self.guard.communicate()


@dataclass(frozen=True)
class Launcher:
    """Starts tritonserver as often as needed, always on the same ports. ``environment`` is added to ours."""

    command: Sequence[str]
    environment: Mapping[str, str]
    shm_prefix: str
    runtime: Path
    view: View
    api: Api
    log: Log

    @classmethod
    def prepare(
        cls,
        binary: Path,
        access: Access,
        repositories: Sequence[Path],
        profile: Profile | None,
        options: Sequence[str],
        runtime: Path,
        log: Log,
    ) -> Launcher:
        """Prepare the empty folder ``runtime``. ``options`` are the last ones on the command line.

        Raises SetupError if the binary cannot serve the models with the profile, and ServerError if a port is taken.
        """
        chosen = profile or (EMBEDDED_CPU if is_embedded(binary) else CONTAINER)
        view = View(runtime / "view", repositories, chosen)
        for model, config in view.configs.items() if is_embedded(binary) else ():
            if why := find_unservable(config):
                raise SetupError(f"{chosen} is not for the embedded server, {model}: {why}")
        shm_prefix = f"vlclip_{os.getpid()}_{secrets.token_hex(4)}_"
        own_options, environment = assemble(binary, runtime)
        own_options += gpu_options(view.configs.values()) if is_embedded(binary) else newer_options(binary)
        return cls(
            [str(binary), *access.options(), *fixed_options(view.folder, shm_prefix), *own_options, *options],
            {"VLCLIP_METRICS": f"{access.host}:{access.ports.metrics}", **environment},
            shm_prefix,
            runtime,
            view,
            Api((access.http_host, access.ports.http), (access.host, access.ports.metrics), access.admin_key),
            log,
        )

    def launch_first(self, manifest: Manifest | None, stop: threading.Event) -> Triton:
        """Like :meth:`launch`, but start Triton FIRST_STARTS times if it crashes. Any other failure is final."""
        for _, seconds in zip(range(FIRST_STARTS - 1), backoff(), strict=False):
            try:
                return self.launch(manifest, stop)
            except Crashed as error:
                wait_after(error, seconds, stop)
        return self.launch(manifest, stop)

    def relaunch(self, choose: Callable[[], Manifest | None], stop: threading.Event) -> Triton:
        """Start Triton until it comes up. ``choose`` returns the version, which may change from one try to the next.

        It has answered before with this configuration, so no failure is final. Raises Stopping when ``stop`` is set.
        """
        for seconds in backoff():
            try:
                return self.launch(choose(), stop)
            except (ServingError, OSError) as error:
                wait_after(error, seconds, stop)
        raise AssertionError("backoff() ended")

    def launch(self, manifest: Manifest | None, stop: threading.Event) -> Triton:
        """Start Triton with the version of ``manifest``, and wait until its pipelines give correct answers.

        Raises SetupError if it cannot be run, ServerError if it does not come up, and Stopping when ``stop`` is set.
        """
        for model in self.view.models:
            self.view.write(model, manifest)
        triton = self._start_processes()
        try:
            return self._wait_until_it_answers(triton, stop)
        except BaseException:
            triton.end()
            raise

    def _start_processes(self) -> Triton:
        with self.log.open() as log:
            try:
                # In its own session, so that Ctrl-C reaches only us, and the models can finish their requests.
                process = subprocess.Popen(
                    self.command,
                    env={"ORT_DISABLE_TELEMETRY": "1", **os.environ, **self.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise SetupError(f"{self.command[0]} cannot be run: {error}") from error
        try:
            guard = subprocess.Popen(
                ["/bin/sh", "-c", GUARD, str(process.pid), str(SHARED_MEMORY / self.shm_prefix), str(self.runtime)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            process.kill()
            raise
        return Triton(process, guard, self.shm_prefix)

    def _wait_until_it_answers(self, triton: Triton, stop: threading.Event) -> Triton:
        begin = time.monotonic()
        while not self.api.is_ready():
            self.log.follow()
            if stop.is_set():
                raise Stopping
            self._require_running(triton)
            if time.monotonic() - begin > LOAD_SECONDS:
                raise ServerError(f"Triton was not ready after {LOAD_SECONDS:.0f} s:\n" + self.log.excerpt())
            time.sleep(0.05)
        if problem := self.api.find_problem(self.view.pipelines, FIRST_ANSWER_SECONDS):
            self._require_running(triton)
            raise ServerError(f"Triton is ready, but {problem}\n" + self.log.excerpt())
        return replace(triton, patience=MARGIN_SECONDS + 2 * (time.monotonic() - begin))

    def _require_running(self, triton: Triton) -> None:
        code = triton.process.poll()
        if code is not None:
            error = Crashed if code < 0 else ServerError
            raise error(f"Triton did not start, {describe_exit(code)}:\n" + self.log.excerpt())


def describe_exit(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"with exit code {code}"


def backoff(uniform: Callable[[float, float], float] = random.uniform) -> Iterator[float]:
    """Seconds to wait before each next start, without end: exponential, with jitter. ``uniform`` draws the jitter."""
    for power in itertools.count():
        longest = min(LONGEST_RESTART_SECONDS, RESTART_SECONDS * 2 ** min(power, 30))
        yield uniform(longest / 2, longest)


def wait_after(error: Exception, seconds: float, stop: threading.Event) -> None:
    """Report a failed start, and wait. Raises Stopping when ``stop`` is set."""
    report(f"{error}\nTriton is started again in {seconds:.1f} s")
    if stop.wait(seconds):
        raise Stopping
