"""A Triton that serves the model repositories, and keeps serving them.

    with Server.start() as server:
        client = tritonclient.grpc.InferenceServerClient(server.grpc_url)

Every Python model runs in a process of its own. Triton neither restarts one that died nor stops calling itself ready
(server issue 8604), so those processes are watched: one that is alive and does not work (see `hangs`) is killed,
the model of a dead one is loaded again, and should the pipelines not answer rightly then, Triton is started anew on the
same ports. Whether they do is what `python -m serving probe` tells others.

The version that manifest.json of the repository names is served, and followed: when it changes, the pipelines change
over without dropping a request.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.errors import ServerError, SetupError
from serving.paths import REPOSITORIES
from serving.repository.folders import find_home, require_artefacts
from serving.repository.manifest import Manifest, manifest_path, read_served
from serving.repository.profiles import EMBEDDED_CPU, Profile, find_unservable, fragments_of
from serving.repository.view import View
from serving.server.api import FAILURES, LOAD_SECONDS, Api
from serving.server.embedded import assemble, find_tritonserver, is_embedded
from serving.server.gpu import gpu_options
from serving.server.hangs import Hangs
from serving.server.log import LIMIT_BYTES, Log
from serving.server.stubs import SHARED_MEMORY, Stub, find_stubs, is_alive, kill, remove_stubs
from serving.server.tls import LOOPBACK, Relay, Tls

SHARED_MEMORY_KEY = "VLCLIP_SHARED_MEMORY_KEY"
"""The environment variable with the key to shared memory, of the server and of the clients on its host."""
ADMIN_KEY = "VLCLIP_ADMIN_KEY"
"""The environment variable with the key to what else is closed, for those who operate the server by Triton's APIs."""
CHANGING = ("model-repository", "trace", "logging")
"""APIs closed to those without the admin key: the first loads code, the others write files of the caller's choice."""
TELLING = ("statistics",)
"""Closed likewise, unless only this machine can ask: then benchmarks and profilers need them."""

DRAIN_SECONDS = 30
"""For requests in hand, when a model or the server is to stop."""
LINGER_SECONDS = 2
"""For the last answers on their way, where no model is left and Triton waits for idle connections."""
FIRST_ANSWER_SECONDS = 60.0
"""For the pipelines' first answers: a large detector on a CPU takes long, and all have everything to warm up."""
PATIENCE_SECONDS = 10.0
"""For what later is loaded again or asked, besides twice the time that it took at the start."""
MENDS = 3
"""Times that models are loaded again before Triton is started anew."""
WATCH_SECONDS = 0.2
SHARED_MEMORY_BYTES = 384 << 20
"""For the largest canvases of a full batch, 113 MB, in the hands of three models at once."""

# Ends Triton with its stubs, and what they leave behind, should we be killed and so close the pipe to this. Not left to
# the kernel (PR_SET_PDEATHSIG), which would do so when the thread ends that started Triton.
GUARD = 'read -r _; kill -s KILL -- "-$0"; sleep 1; rm -rf "$1"* "$2"'


@dataclass(frozen=True)
class Ports:
    """TCP ports; 0 stands for a free one."""

    grpc: int = 0
    http: int = 0
    metrics: int = 0
    https: int = 0
    """Used with TLS only."""


class Server:
    """A running Triton and the thread that watches it; :meth:`start` makes one."""

    _view: View

    def __init__(
        self, repositories: Sequence[Path], host: str, ports: Ports, tls: Tls | None, log: Path | None, echo: bool
    ):
        self.admin_key = os.environ.get(ADMIN_KEY) or secrets.token_hex(16)
        self.shared_memory_key = os.environ.get(SHARED_MEMORY_KEY) or secrets.token_hex(16)
        self.host = LOOPBACK if host == "0.0.0.0" else host
        self.ports = ports
        self._tls = tls
        self._http_host = LOOPBACK if tls else self.host
        self.shm_prefix = f"vlclip_{os.getpid()}_{secrets.token_hex(4)}_"
        self._runtime = Path(tempfile.mkdtemp(prefix="vlclip-"))
        self.log = Log(log, echo=echo) if log else Log(self._runtime / "triton.log", limit=LIMIT_BYTES, echo=echo)
        self._home = find_home(repositories)
        self._manifest = self._seen = read_served(self._home) if self._home else None
        self._api = Api((self._http_host, ports.http), (self.host, ports.metrics), self.admin_key)
        self._hangs = Hangs(self._api)
        closed = ",".join(CHANGING if host in (LOOPBACK, "localhost") else CHANGING + TELLING)
        self._options = [
            f"--grpc-address={host}",
            f"--http-address={LOOPBACK if tls else host}",
            f"--metrics-address={host}",
            f"--grpc-port={ports.grpc}",
            f"--http-port={ports.http}",
            f"--metrics-port={ports.metrics}",
            f"--model-repository={self._runtime / 'view'}",
            # Explicit control lets us say when to look; the key keeps it to ourselves.
            "--model-control-mode=explicit",
            "--load-model=*",
            # Not to be called unready, and left out by a balancer, for the time in which another version is loading.
            "--strict-readiness=false",
            f"--grpc-restricted-protocol={closed}:admin-key={self.admin_key}",
            f"--http-restricted-api={closed}:admin-key={self.admin_key}",
            # Who may name a region may have the server read it: for those that were told the key.
            f"--grpc-restricted-protocol=shared-memory:shared-memory-key={self.shared_memory_key}",
            f"--http-restricted-api=shared-memory:shared-memory-key={self.shared_memory_key}",
            # The configs are complete. To see whether they are, Triton would start every Python model twice.
            "--disable-auto-complete-config",
            f"--backend-config=python,shm-region-prefix-name={self.shm_prefix}",
            f"--exit-timeout-secs={DRAIN_SECONDS}",
            # Percentiles of latency, which deploy/prometheus/rules judge.
            "--metrics-config=summary_latencies=true",
            *(tls.options() if tls else []),
            *([] if Path("/dev/nvidiactl").exists() else ["--allow-gpu-metrics=false"]),
        ]
        self._command: list[str] = []
        self._relay: Relay | None = None
        self._environment: dict[str, str] = {}
        self._stubs: dict[int, Stub] = {}
        self._replaced: dict[int, float] = {}
        self._load_seconds = self._answer_seconds = PATIENCE_SECONDS
        self._stopping = threading.Event()
        self._failed = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="watch-triton", daemon=True)

    @classmethod
    def start(
        cls,
        model_repositories: Sequence[Path | str] = REPOSITORIES,
        *,
        host: str = "127.0.0.1",
        ports: Ports = Ports(),
        profile: Profile | None = None,
        tls: Tls | None = None,
        triton: str | None = None,
        options: Sequence[str] = (),
        log: Path | None = None,
        echo: bool = False,
    ) -> Server:
        """Start Triton and wait until its pipelines answer rightly.

        ``profile`` is laid over the configs (see `serving.repository.profiles`); without one, the embedded server takes
        embedded-cpu, and a full installation the configs as they are. ``tls`` encrypts gRPC, and HTTP on a port of its
        own, while plain HTTP is left to this machine; ``triton`` is a tritonserver or the folder that its wheel was
        installed into; ``options`` go to tritonserver as they are; ``log`` is a file that Triton's log is appended to,
        without one it goes with the server, and ``echo`` repeats it on stderr.

        Raises SetupError when something is not installed or not exported, ServerError when Triton does not come up.
        """
        if ":" in host:
            raise SetupError(f"--host {host}: expected a name or an IPv4 address, Triton's HTTP takes no other here")
        repositories = [Path(folder) for folder in model_repositories]
        require_artefacts(repositories)
        if shutil.disk_usage(SHARED_MEMORY).free < SHARED_MEMORY_BYTES:
            report(f"{SHARED_MEMORY} is nearly full or small, large batches will fail; in Docker, give --shm-size=1g")
        binary = find_tritonserver(triton)
        context = tls.context() if tls else None
        server = cls(repositories, host, replace_zeros(ports), tls, log, echo)
        try:
            chosen = profile or (EMBEDDED_CPU if is_embedded(binary) else None)
            server._view = View(server._runtime / "view", repositories, chosen)
            if profile and (stray := sorted(fragments_of(profile).keys() - server._view.models)):
                raise SetupError(f"{profile} has fragments for {', '.join(stray)}, and there is no such model")
            for model, config in server._view.configs.items() if is_embedded(binary) else ():
                if why := find_unservable(config):
                    raise SetupError(f"{chosen} is not for the embedded server, {model}: {why}")
            own_options, server._environment = assemble(binary, server._runtime)
            if is_embedded(binary):
                own_options += gpu_options(server._view.configs.values())
            server._command = [str(binary), *server._options, *own_options, *options]
            require_free("gRPC", host, server.ports.grpc)
            require_free("HTTP", LOOPBACK if tls else host, server.ports.http)
            require_free("metrics", host, server.ports.metrics)
            if context:
                server._relay = open_relay(host, server.ports, context)
            server._launch()
            server._watcher.start()
        except BaseException:
            server._clean_up()
            raise
        return server

    @property
    def pid(self) -> int:
        """Process id of tritonserver; another after a restart."""
        return self._process.pid

    @property
    def grpc_url(self) -> str:
        """``host:port``, as tritonclient takes it."""
        return f"{self.host}:{self.ports.grpc}"

    @property
    def http_url(self) -> str:
        """``host:port``, as tritonclient takes it."""
        return f"{self._http_host}:{self.ports.http}"

    @property
    def https_url(self) -> str | None:
        """``host:port``, as tritonclient takes it; None without TLS."""
        return f"{self.host}:{self.ports.https}" if self._tls else None

    @property
    def metrics_url(self) -> str:
        return f"http://{self.host}:{self.ports.metrics}/metrics"

    @property
    def pipelines(self) -> list[str]:
        return sorted(self._view.pipelines)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait(self) -> None:
        """Block as long as the server serves. Raises ServerError once it cannot be mended."""
        self._failed.wait()
        raise ServerError("Triton stopped and does not start again:\n" + self.log.excerpt())

    def stop(self) -> None:
        """Let accepted requests finish, then give ports, processes and shared memory back. Twice does no harm."""
        if not self._runtime.exists():
            return
        self._stopping.set()
        try:
            self._watcher.join()
            is_empty = self._drain()
            self.log.mark()
            self._process.terminate()
            deadline = time.monotonic() + (LINGER_SECONDS if is_empty else DRAIN_SECONDS + 10)
            while self._process.poll() is None and time.monotonic() < deadline:
                self.log.follow()
                # All requests are answered. Unloading would take seconds more, and forever for a process that died.
                if self.log.has("All models are stopped"):
                    time.sleep(0.5)
                    break
                time.sleep(0.05)
        finally:
            self._clean_up()

    def _drain(self) -> bool:
        """Wait until what the pipelines have accepted is answered; say whether all that was accepted surely is.

        A stopping Triton lets no request into a model any more, not even from a pipeline that is half way through.
        """
        deadline = time.monotonic() + DRAIN_SECONDS
        is_drained = self._unload(self._view.pipelines, deadline)
        # Triton would wait for connections that nobody uses any more.
        self._close_relay()
        # Those of plain HTTP, only their owners could close. A Triton without models has no reason to wait for them;
        # with none of them, to unload the models would only take time.
        return is_drained and has_connections(self.ports.http) and self._unload(self._view.models, deadline)

    def _unload(self, models: Collection[str], deadline: float) -> bool:
        """Let models accept nothing more, and wait until what they have accepted is answered; say whether it is."""
        try:
            for model in models:
                self._api.unload(model)
            while self._api.is_unloading(models):
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.05)
        except FAILURES as error:
            report(f"could not close {', '.join(models)}: {error}")
            return False
        return True

    def _launch(self) -> None:
        for model in self._view.models:
            self._view.write(model, self._manifest)
        with self.log.open() as log:
            try:
                # In a session of its own, so that Ctrl-C reaches us alone and the models can finish their work.
                self._process = subprocess.Popen(
                    self._command,
                    env={
                        "ORT_DISABLE_TELEMETRY": "1",
                        **os.environ,
                        "VLCLIP_METRICS": f"{self.host}:{self.ports.metrics}",
                        **self._environment,
                    },
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise SetupError(f"{self._command[0]} cannot be run: {error}") from error
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, str(self.pid), str(SHARED_MEMORY / self.shm_prefix), str(self._runtime)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        begin = time.monotonic()
        deadline = begin + LOAD_SECONDS
        while not self._api.is_ready():
            self.log.follow()
            self._check_stopping()
            if self._process.poll() is not None:
                raise ServerError("Triton did not start:\n" + self.log.excerpt())
            if time.monotonic() > deadline:
                raise ServerError(f"Triton was not ready after {LOAD_SECONDS:.0f} s:\n" + self.log.excerpt())
            time.sleep(0.05)
        ready = time.monotonic()
        problem = self._api.find_problem(self._view.pipelines, FIRST_ANSWER_SECONDS)
        if problem:
            raise ServerError(f"Triton is ready, but {problem}\n" + self.log.excerpt())
        self._load_seconds = PATIENCE_SECONDS + 2 * (ready - begin)
        self._answer_seconds = PATIENCE_SECONDS + 2 * (time.monotonic() - ready)
        self._stubs = {stub.pid: stub for stub in find_stubs(self.shm_prefix)}

    def _load(self, model: str, manifest: Manifest, beside: Sequence[int] = ()) -> None:
        """Load a model, or a pipeline's wiring, in the version of ``manifest``. Raises one of FAILURES."""
        self._check_stopping()
        self._view.write(model, manifest, beside)
        self._api.load(model)

    def _check_stopping(self) -> None:
        if self._stopping.is_set():
            raise ConnectionAbortedError("the server is to stop")

    def _take_stock(self) -> None:
        """Tell the processes to watch from those that end by themselves because others took their place."""
        before, manifest = self._stubs, self._manifest
        known = {**before, **dict.fromkeys(self._replaced)}
        new = {stub.pid: stub for stub in find_stubs(self.shm_prefix) if stub.pid not in known}
        renewed = {(stub.model, stub.version) for stub in new.values()}

        def is_done(stub: Stub) -> bool:
            return manifest is not None and stub.model in manifest.leaves and stub.version != manifest.version

        gone = {pid for pid, stub in before.items() if (stub.model, stub.version) in renewed}
        gone |= {pid for pid, stub in (before | new).items() if is_done(stub)}
        self._replaced.update(dict.fromkeys(gone, time.monotonic()))
        self._stubs = {pid: stub for pid, stub in (before | new).items() if pid not in gone}

    def _watch(self) -> None:
        try:
            while not self._stopping.wait(WATCH_SECONDS):
                self.log.follow()
                self._end_replaced()
                if (code := self._process.poll()) is not None:
                    report(f"Triton died, {describe_exit(code)}; starting it anew. From its log:\n{self.log.excerpt()}")
                    self._restart()
                self._end_hung()
                if self._find_dead():
                    self._mend()
                self._follow()
        except Exception as error:
            if not self._stopping.is_set():
                report(str(error))
                self._failed.set()

    def _follow(self) -> None:
        """Serve what the repository now says is to be served, where that can be done without a break."""
        told = read_served(self._home) if self._home else None
        if told is None or told == self._seen:
            return
        self._seen = told
        if self._manifest is None or told == self._manifest:
            return
        if why := find_hindrance(self._manifest, told, self._find_replacement()):
            report(f"version {told.version} of the repository is served after a restart only: {why}")
        else:
            self._switch(self._manifest, told)

    def _switch(self, old: Manifest, new: Manifest) -> None:
        """Load a version beside the one that serves, have the pipelines change over, and let the old one go.

        A pipeline holds on to the models that a request began with, so each answer is of one version alone.
        """
        begin, are_loaded = time.monotonic(), False
        report(f"loading version {new.version} beside version {old.version}")
        try:
            for leaf in new.leaves:
                self._load(leaf, new, beside=[old.version])
            are_loaded = True
            for pipeline in self._view.pipelines:
                self._load(pipeline, new)
            problem = self._api.find_problem(self._view.pipelines, self._answer_seconds)
        except FAILURES as error:
            problem = one_line(error)
        self._manifest = old if problem else new
        try:
            for pipeline in self._view.pipelines if problem and are_loaded else ():
                self._load(pipeline, old)
            for leaf in new.leaves:
                self._load(leaf, self._manifest)
            self._take_stock()
        except FAILURES as error:
            if self._stopping.is_set():
                return
            report(f"Triton does not change over, {one_line(error)}; starting it anew")
            self._restart()
        if problem:
            report(f"version {old.version} goes on; version {new.version} is not served: {problem}")
        else:
            report(f"version {new.version} is served, after {time.monotonic() - begin:.1f} s")

    def _find_replacement(self) -> Manifest | None:
        """What was exported into the place of the version that is loaded, if anything was."""
        if self._home is None or self._manifest is None:
            return None
        there = Manifest.read(manifest_path(self._home, self._manifest.version))
        return there if there != self._manifest else None

    def _mend(self) -> None:
        """Load the models of dead processes again, or start Triton anew where that is not enough."""
        if self._find_replacement():
            report("a process died whose model was exported anew since; starting Triton with all of that export")
            self._restart()
            return
        mended: set[str] = set()
        try:
            for _ in range(MENDS):
                self._check_stopping()
                if not (dead := self._find_dead()):
                    break
                models = {stub.model for stub in dead}
                report(f"a process of {', '.join(sorted(models))} died; loading the model again")
                for stub in dead:
                    (SHARED_MEMORY / stub.region).unlink(missing_ok=True)
                for model in sorted(models):
                    # A Triton that waits for what the dead process had in hand would wait forever.
                    self._api.reload(model, self._load_seconds)
                # Other instances of these models were replaced as well, and may still have work in hand.
                self._take_stock()
                mended |= models
            problem = self._api.find_problem(self._view.pipelines, self._answer_seconds)
        except FAILURES as error:
            self._check_stopping()
            problem = str(error)
        if problem:
            report(f"that did not help, {problem}; starting Triton anew")
            self._restart()
        else:
            report(f"{', '.join(sorted(mended))} answers again")

    def _end_hung(self) -> None:
        """Kill what is alive and does not work, so that it is mended as what died."""
        for pid, why in self._hangs.find(self.pid, self._stubs.values()).items():
            report(f"{f'a process of {self._stubs[pid].model}' if pid in self._stubs else 'Triton'} {why}; killing it")
            kill(pid)

    def _find_dead(self) -> list[Stub]:
        return [stub for stub in self._stubs.values() if not is_alive(stub.pid)]

    def _end_replaced(self) -> None:
        """Kill processes of models that were loaded again, once they have had time to finish their work.

        Triton would end them, but waits in vain for their dead sibling first.
        """
        due = {pid for pid, since in self._replaced.items() if time.monotonic() - since > DRAIN_SECONDS}
        # Looked up again, because a number may by now be that of another process.
        for stub in find_stubs(self.shm_prefix) if due else ():
            if stub.pid in due:
                kill(stub.pid)
                (SHARED_MEMORY / stub.region).unlink(missing_ok=True)
        for pid in due:
            del self._replaced[pid]

    def _restart(self) -> None:
        self._end()
        self._manifest = self._find_replacement() or self._manifest
        self._replaced.clear()
        self._launch()
        report("Triton answers again")

    def _end(self) -> None:
        """Kill whatever still runs, at once."""
        if hasattr(self, "_process"):
            self._process.kill()
            self._process.wait()
        remove_stubs(self.shm_prefix)
        if hasattr(self, "_guard"):
            self._guard.kill()
            self._guard.communicate()

    def _clean_up(self) -> None:
        self._close_relay()
        self._end()
        self.log.follow()
        shutil.rmtree(self._runtime, ignore_errors=True)

    def _close_relay(self) -> None:
        if self._relay:
            self._relay.close()
            self._relay = None


def find_hindrance(old: Manifest, new: Manifest, replacement: Manifest | None) -> str | None:
    """Why ``new`` cannot be loaded beside ``old``; None where it can."""
    if new.leaves.keys() != old.leaves.keys():
        return "it was exported by code that has other models than this"
    if replacement:
        return f"version {old.version}, which is loaded, was exported anew (another --version would stand beside it)"
    if any(old.leaves[leaf].file != new.leaves[leaf].file for leaf in new.leaves):
        return "a model runs in one format at a time, and this version has another"
    return None


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def require_free(protocol: str, host: str, port: int) -> None:
    """Raise ServerError for a port that is taken, which Triton would find out once it has loaded all models."""
    try:
        # One that others are ready to share, as by --reuse-grpc-port, is Triton's to judge.
        socket.create_server((host, port), reuse_port=True).close()
    except (OSError, OverflowError) as error:
        raise ServerError(f"no {protocol} on {host}:{port}: {error}") from error


def open_relay(host: str, ports: Ports, context: ssl.SSLContext) -> Relay:
    try:
        return Relay(host, ports.https, context, ports.http)
    except (OSError, OverflowError) as error:
        raise ServerError(f"no HTTPS on {host}:{ports.https}: {error}") from error


def has_connections(port: int) -> bool:
    """Whether somebody is connected to a TCP port of this machine."""
    tables = [table.read_text() for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")) if table.exists()]
    established = rf"^ *\d+: \w+:{port:04X} \w+:\w+ 01 "
    return any(re.search(established, table, re.MULTILINE) for table in tables)


def replace_zeros(ports: Ports) -> Ports:
    """Take a free port for each 0."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
    free = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return Ports(ports.grpc or free[0], ports.http or free[1], ports.metrics or free[2], ports.https or free[3])


def describe_exit(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"with exit code {code}"


def report(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)
