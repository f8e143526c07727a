"""Errors that the user can fix. Each message says how.

ServingError
├── SetupError        something is not installed, not exported or not configured
├── ServerError       Triton did not start
└── RepositoryError   the model repository lacks a version, or is locked by another export
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
