"""Errors that a person can act on; each message says what to do.

ServingError
├── SetupError        something is not installed, not exported or not configured
├── ServerError       Triton did not start, or cannot be kept running
└── RepositoryError   the model repository lacks what was asked for, or is locked by another export
"""

from __future__ import annotations


class ServingError(Exception):
    """Base class of the errors above."""


class SetupError(ServingError):
    pass


class ServerError(ServingError):
    pass


class RepositoryError(ServingError):
    pass
