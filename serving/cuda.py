"""What the leaves on a GPU share: a process whose CUDA context is lost must end.

After an error such as an illegal address, CUDA answers every call of the process with that error, and only a new
process gets a new context. Nothing outside can see this: the process lives and answers. So it ends itself, and the
server, which watches its processes, loads the model again.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import triton_python_backend_utils as pb_utils

LOST = 70
"""The exit code of a process that has lost its context."""

Probe = Callable[[], None]
"""Raises an error if the context is lost."""


def probe_of(device: int) -> Probe:
    """Wait for all work on the GPU with this number: a lost context answers with its error, a sound one does not.

    Running out of memory or a wrong argument harms one call only, and the probe raises nothing then.
    """
    import torch

    def probe() -> None:
        torch.cuda.synchronize(device)

    return probe


def end_if_lost(probe: Probe | None, error: Exception) -> None:
    """Call this after an ``error`` on a GPU. Returns if the context is sound, or there is no GPU to probe."""
    if probe is None:
        return
    try:
        probe()
    except Exception as lost:
        pb_utils.Logger.log_error(f"CUDA has failed, so this process ends and is started again: {error} ({lost})")
        # Neither Python's nor CUDA's cleanup can be relied on now.
        os._exit(LOST)
