"""Keeps Triton working. This is what happens when a process dies or hangs, looked at every WATCH_SECONDS:

    tritonserver dies                      Triton is restarted on the same ports
    a model process (stub) dies            its model is loaded again; if the pipelines do not work then, Triton restarts
    either is stopped or hangs             it is killed (hangs.py says when), and then treated like one that died
    a process loses its CUDA context       it ends itself (serving/cuda.py), and so has died
    a restart fails                        it is tried again, after 1 s at first and 60 s at last, with jitter

No failed restart is final, because Triton has worked with this configuration: something else is wrong, such as a
request that crashes Triton while it loads, full memory or a port that another program took. A configuration that does
not work ends the command at its start. A restart serves what was exported or rolled back to in the meantime.

Triton itself does none of this: no release restarts a dead stub, and all call themselves ready without it (server issue
8604). Requests in a dead process end with an error; the client sends them again.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from serving.server.api import FAILURES
from serving.server.hangs import Hangs
from serving.server.launch import Launcher, RestartNeeded, Stopping, Triton, describe_exit
from serving.server.limits import WATCH_SECONDS
from serving.server.log import report
from serving.server.stubs import Stub, Stubs, kill
from serving.server.switch import Versions

RELOADS = 3
"""How often models are loaded again before Triton is restarted."""


class Watcher(threading.Thread):
    """The thread that watches a running Triton. ``triton`` is the current one: a restart replaces it."""

    def __init__(self, launcher: Launcher, triton: Triton, versions: Versions, stop: threading.Event):
        super().__init__(name="watch-triton", daemon=True)
        self.triton = triton
        self.stop = stop
        self.failed = threading.Event()
        self._launcher = launcher
        self._stubs = Stubs(launcher.shm_prefix)
        self._versions = versions
        self._hangs = Hangs(launcher.api)

    def run(self) -> None:
        """Watch until the stop signal, or until an unexpected error, which sets ``failed``."""
        try:
            while not self.stop.wait(WATCH_SECONDS):
                try:
                    self._look()
                except RestartNeeded as reason:
                    self._restart(str(reason))
        except Stopping:
            pass
        except Exception as error:
            if not self.stop.is_set():
                self.failed.set()
                report(f"the server ends because of an unexpected error: {error!r}")

    def _look(self) -> None:
        """Look once, and do what is needed. Raises RestartNeeded and Stopping."""
        self._launcher.log.follow()
        self._stubs.end_replaced()
        if (code := self.triton.process.poll()) is not None:
            raise RestartNeeded(
                f"Triton died, {describe_exit(code)}. From its log:\n{self._launcher.log.excerpt(recent=True)}"
            )
        self._kill_hung()
        if self._stubs.find_dead():
            self._reload()
        if self._versions.follow(self.triton.patience):
            self._stubs.update(self._versions.loaded)

    def _restart(self, reason: str) -> None:
        if self.stop.is_set():
            raise Stopping
        report(f"restarting Triton: {reason}")
        self.triton.end()
        self.triton = self._launcher.relaunch(self._versions.adopt, self.stop)
        self._stubs.reset()
        report("Triton answers again")

    def _kill_hung(self) -> None:
        models = {stub.pid: stub.model for stub in self._stubs.watched}
        for pid, why in self._hangs.find(self.triton.process.pid, self._stubs.watched).items():
            name = f"a process of {models[pid]}" if pid in models else "Triton"
            report(f"{name} {why}; killing it")
            kill(pid)

    def _reload(self) -> None:
        """Load the models of dead processes again. Raises RestartNeeded if that does not help."""
        if self._versions.find_replacement():
            raise RestartNeeded("a process died, and its version has been exported again since")
        reloaded: set[str] = set()
        try:
            for _ in range(RELOADS):
                if self.stop.is_set():
                    raise Stopping
                if not (dead := self._stubs.find_dead()):
                    break
                reloaded |= {stub.model for stub in dead}
                self._load_again(dead)
            problem = self._launcher.api.find_problem(self._launcher.view.pipelines, self.triton.patience)
        except FAILURES as error:
            problem = str(error)
        if problem:
            raise RestartNeeded(f"loading {', '.join(sorted(reloaded))} again did not help: {problem}")
        report(f"{', '.join(sorted(reloaded))} works again")

    def _load_again(self, dead: Sequence[Stub]) -> None:
        """Load the models of these processes again. Raises one of FAILURES."""
        models = sorted({stub.model for stub in dead})
        report(f"a process of {', '.join(models)} died; loading the model again")
        for stub in dead:
            stub.remove_region()
        for model in models:
            # With a time-out, because Triton may wait forever for the requests of the dead process.
            self._launcher.api.reload(model, self.triton.patience)
        # Other processes of these models were replaced as well, and may still have requests.
        self._stubs.update(self._versions.loaded)
