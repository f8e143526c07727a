"""Keeps the libraries that export stands on from writing to the home folder, installing and phoning home."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def quiet_ultralytics() -> None:
    """Must run before the first ``import ultralytics``, which reads these once.

    Without it, ultralytics writes a settings file into the home folder, installs packages that a checkpoint
    asks for, and sends usage events. What a user has set himself is left as it is.
    """
    config = Path(tempfile.gettempdir()) / f"vlclip-ultralytics-{os.getuid() if hasattr(os, 'getuid') else 0}"
    config.mkdir(exist_ok=True)
    os.environ.setdefault("YOLO_CONFIG_DIR", str(config))
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_VERBOSE", "false")


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Silences what torch's exporter tells and warns about itself; its errors still raise."""
    with warnings.catch_warnings(), quiet_logging():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def quiet_logging(level: int = logging.WARNING) -> Iterator[None]:
    """Nothing up to ``level``: open_clip tells each of its steps to the root logger, and errors that it raises too."""
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        yield
    finally:
        logging.disable(before)
