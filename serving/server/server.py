"""A Triton that serves the model repositories, and keeps working.

    with Server.start() as server:
        client = tritonclient.grpc.InferenceServerClient(server.grpc_url)

Each part is a module:

    options.py   the command line: addresses, TLS, keys, options by version of Triton
    launch.py    starting Triton, and waiting until its pipelines give correct answers
    watch.py     what happens when a process dies or hangs
    switch.py    changing the version of the models, when the repository's manifest.json changes
    drain.py     stopping: accepted requests finish first
    limits.py    all time limits, and what limits how long a request waits
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from serving.errors import ServerError
from serving.paths import REPOSITORIES
from serving.repository.folders import find_home, require_artefacts
from serving.repository.profiles import Profile
from serving.server.drain import stop_triton
from serving.server.embedded import find_tritonserver, keep_from_cleaning, make_runtime_folder
from serving.server.launch import Launcher
from serving.server.log import LIMIT_BYTES, Log, report
from serving.server.options import FREE_PORTS, Access, Ports, Tls, replace_zeros, resolve
from serving.server.stubs import SHARED_MEMORY
from serving.server.switch import Versions
from serving.server.watch import Watcher

__all__ = ["Ports", "Server"]
SHARED_MEMORY_BYTES = 384 << 20
"""Free space needed in /dev/shm: the largest canvases of a full batch take 113 MB, in three models at the same time."""


class Server:
    """A running Triton and the thread that watches it. Use :meth:`start` to make one.

    ``grpc_url`` and ``http_url`` are ``host:port``, as tritonclient takes them.
    """

    def __init__(self, access: Access, launcher: Launcher, watcher: Watcher, cleanup: contextlib.ExitStack):
        self.host, self.ports = access.host, access.ports
        self.admin_key, self.shared_memory_key = access.admin_key, access.shared_memory_key
        self.grpc_url = f"{access.host}:{access.ports.grpc}"
        self.http_url = f"{access.http_host}:{access.ports.http}"
        self.metrics_url = f"http://{access.host}:{access.ports.metrics}/metrics"
        self.pipelines = sorted(launcher.view.pipelines)
        self.shm_prefix = launcher.shm_prefix
        self.log = launcher.log
        self._launcher = launcher
        self._watcher = watcher
        self._cleanup = cleanup

    @classmethod
    def start(
        cls,
        model_repositories: Sequence[Path | str] = REPOSITORIES,
        *,
        host: str = "127.0.0.1",
        ports: Ports = FREE_PORTS,
        profile: Profile | None = None,
        tls: Tls | None = None,
        triton: str | None = None,
        options: Sequence[str] = (),
        log: Path | None = None,
        echo: bool = False,
    ) -> Server:
        """Start Triton and wait until its pipelines give correct answers.

        ``host`` is the name or IPv4 address to listen on. ``profile`` is laid over the configs
        (serving.repository.profiles); by default the embedded server takes embedded-cpu, and a full installation takes
        ngc. ``tls`` encrypts gRPC, and restricts HTTP to the loopback. ``triton`` is a tritonserver, or the folder into
        which its wheel was installed; ``options`` are passed to it unchanged. ``log`` is a file to which its log is
        appended; by default the log is deleted with the server. ``echo`` repeats it on stderr.

        Raises SetupError if something is not installed, exported or configured, and ServerError if Triton does not
        come up.
        """
        repositories = [Path(folder) for folder in model_repositories]
        require_artefacts(repositories)
        if shutil.disk_usage(SHARED_MEMORY).free < SHARED_MEMORY_BYTES:
            report(f"{SHARED_MEMORY} is small or nearly full; large batches will fail. In Docker, pass --shm-size=1g")
        binary = find_tritonserver(triton)
        if tls:
            tls.check()
        access = Access(resolve(host), replace_zeros(ports), tls)
        with contextlib.ExitStack() as cleanup:
            runtime = make_runtime_folder()
            cleanup.callback(shutil.rmtree, runtime, ignore_errors=True)
            cleanup.callback(os.close, keep_from_cleaning(runtime))
            triton_log = Log(log, echo=echo) if log else Log(runtime / "triton.log", limit=LIMIT_BYTES, echo=echo)
            cleanup.callback(triton_log.follow)
            launcher = Launcher.prepare(binary, access, repositories, profile, options, runtime, triton_log)
            stop = threading.Event()
            versions = Versions(find_home(repositories), launcher.view, launcher.api, stop)
            watcher = Watcher(launcher, launcher.launch_first(versions.loaded, stop), versions, stop)
            cleanup.callback(lambda: watcher.triton.end())
            watcher.start()
            return cls(access, launcher, watcher, cleanup.pop_all())

    @property
    def pid(self) -> int:
        """Process id of tritonserver. It changes with a restart."""
        return self._watcher.triton.process.pid

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait(self) -> None:
        """Block while the server works or restarts. Raises ServerError if it can no longer watch Triton."""
        self._watcher.failed.wait()
        raise ServerError("the server cannot watch Triton any longer:\n" + self.log.excerpt())

    def stop(self) -> None:
        """Let accepted requests finish, and free ports, processes and shared memory. Calling it twice is harmless."""
        if self._watcher.stop.is_set():
            return
        with self._cleanup:
            self._watcher.stop.set()
            self._watcher.join()
            stop_triton(self._watcher.triton, self._launcher.view, self._launcher.api, self.ports.http, self.log)
