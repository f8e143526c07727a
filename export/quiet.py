"""Keep libraries from writing to the home folder, installing packages, sending usage data and cluttering the screen."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def quiet_ultralytics() -> None:
    """Set environment variables that the first ``import ultralytics`` reads.

    Without them, ultralytics writes a settings file into the home folder, installs packages that a checkpoint names,
    and sends usage events. Variables that the user has set keep their values.
    """
    config = Path(tempfile.gettempdir()) / f"vlclip-ultralytics-{os.getuid() if hasattr(os, 'getuid') else 0}"
    config.mkdir(exist_ok=True)
    os.environ.setdefault("YOLO_CONFIG_DIR", str(config))
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_VERBOSE", "false")


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Silence the log and the warnings of torch's exporter. Its errors are still raised."""
    with warnings.catch_warnings(), quiet_logging():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def quiet_logging(level: int = logging.WARNING) -> Iterator[None]:
    """Silence the log up to ``level``. open_clip logs each step, and also the errors that it raises."""
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Collect what libraries log and warn of, and show it as warnings if the block succeeds.

    An error says more than the lines that a library logs before it raises it. Announcements of changes in libraries
    are left out.
    """
    logged = Collector(logging.WARNING)
    logging.root.addHandler(logged)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            for announcement in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", announcement)
            yield
    finally:
        logging.root.removeHandler(logged)
    for message in dict.fromkeys([*(str(warning.message) for warning in warned), *logged.messages]):
        warnings.warn(" ".join(message.split()), stacklevel=3)


class Collector(logging.Handler):
    """Keeps the messages of a log."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
