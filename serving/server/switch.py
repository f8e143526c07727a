"""Changes the version of the models that is served, without dropping a request."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from serving.repository.manifest import Manifest, manifest_path, read_served
from serving.repository.view import View
from serving.server.api import FAILURES, Api
from serving.server.launch import RestartNeeded, Stopping
from serving.server.log import one_line, report


class Versions:
    """The version that Triton has loaded, and the change to the one that the repository's manifest.json names.

    ``repository`` is the folder with the manifests; None for models that were not exported.
    """

    def __init__(self, repository: Path | None, view: View, api: Api, stop: threading.Event):
        self.loaded = self._last_read = read_served(repository) if repository else None
        self._repository = repository
        self._view = view
        self._api = api
        self._stop = stop

    def follow(self, patience: float) -> bool:
        """Switch to the version that the repository names, if it changed and this is possible without a restart.

        Returns whether models were loaded. Raises RestartNeeded if Triton cannot go on, and Stopping.
        """
        named = self._read_if_new()
        if named is None or self.loaded is None or named == self.loaded:
            return False
        if why := find_obstacle(self.loaded, named, self.find_replacement()):
            report(f"version {named.version} of the repository is served after a restart only: {why}")
            return False
        self._switch(self.loaded, named, patience)
        return True

    def find_replacement(self) -> Manifest | None:
        """The manifest that was exported in place of the loaded version since, if any."""
        if self._repository is None or self.loaded is None:
            return None
        current = Manifest.read(manifest_path(self._repository, self.loaded.version))
        return current if current != self.loaded else None

    def adopt(self) -> Manifest | None:
        """The version to load when Triton restarts: what the repository names since, or the replacement."""
        named = self._read_if_new()
        if self.loaded and named and named.leaves.keys() == self.loaded.leaves.keys():
            self.loaded = named
        else:
            self.loaded = self.find_replacement() or self.loaded
        return self.loaded

    def _read_if_new(self) -> Manifest | None:
        """What the repository names, if it has changed since this was last called."""
        named = read_served(self._repository) if self._repository else None
        if named is None or named == self._last_read:
            return None
        self._last_read = named
        return named

    def _switch(self, old: Manifest, new: Manifest, patience: float) -> None:
        """Load the new version next to the old one, switch the pipelines over, and unload the old one.

        A pipeline keeps the models with which a request began, so no answer mixes two versions.
        """
        begin, are_leaves_loaded = time.monotonic(), False
        report(f"loading version {new.version} next to version {old.version}")
        try:
            for leaf in new.leaves:
                self._load(leaf, new, keep=[old.version])
            are_leaves_loaded = True
            for pipeline in self._view.pipelines:
                self._load(pipeline, new)
            problem = self._api.find_problem(self._view.pipelines, patience)
        except FAILURES as error:
            problem = one_line(error)
        self.loaded = old if problem else new
        if problem:
            outcome = f"version {old.version} is still served; version {new.version} is not: {problem}"
        else:
            outcome = f"version {new.version} is served"
        try:
            for pipeline in self._view.pipelines if problem and are_leaves_loaded else ():
                self._load(pipeline, old)
            for leaf in new.leaves:
                self._load(leaf, self.loaded)
        except FAILURES as error:
            raise RestartNeeded(f"Triton could not change versions, {one_line(error)}; {outcome}") from error
        report(f"{outcome} (after {time.monotonic() - begin:.1f} s)")

    def _load(self, model: str, manifest: Manifest, keep: Sequence[int] = ()) -> None:
        """Load a model in the version of ``manifest``, and ``keep`` other versions loaded. Raises one of FAILURES."""
        if self._stop.is_set():
            raise Stopping
        self._view.write(model, manifest, keep)
        self._api.load(model)


def find_obstacle(old: Manifest, new: Manifest, replacement: Manifest | None) -> str | None:
    """Why ``new`` cannot be loaded next to ``old``; None if it can."""
    if new.leaves.keys() != old.leaves.keys():
        return "it was exported by code with other models"
    if not new.digests:
        return "it is of an older release, whose graphs do not name their version"
    if replacement:
        return f"version {old.version}, which is loaded, was exported again (use another --version to avoid this)"
    if any(old.leaves[leaf].file != new.leaves[leaf].file for leaf in new.leaves):
        return "it has another format (ONNX, TensorRT), and Triton loads a model in one format at a time"
    return None
