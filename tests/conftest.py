"""Servers for all tests, each started once, and a fake of the module that only Triton's own processes have."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.errors import SetupError
from serving.paths import REPOSITORIES
from serving.repository.folders import require_artefacts
from serving.server.server import Server
from tests import fake_triton, toys
from tests.client.twins import TWINS, Twin

MODELS, ENSEMBLES = REPOSITORIES

# Tests import the leaves, which import this module.
sys.modules["triton_python_backend_utils"] = fake_triton

# A shell starts background jobs with SIGINT ignored, which the processes that tests interrupt would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def toy_repositories(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The models and pipelines of this project, with toys instead of the exported files."""
    return [toys.build(MODELS, tmp_path_factory.mktemp("toys") / "models"), ENSEMBLES]


@pytest.fixture(scope="session")
def server(toy_repositories: list[Path]) -> Iterator[Server]:
    """A server with the exported models, or with toys if nothing was exported. Tests must not break it."""
    try:
        require_artefacts(REPOSITORIES)
        repositories = list(REPOSITORIES)
    except SetupError:
        repositories = toy_repositories
    with Server.start(repositories) as server:
        yield server


@pytest.fixture(params=TWINS.values(), ids=list(TWINS))
def twin(request: pytest.FixtureRequest) -> Twin:
    """A function that creates a client, synchronous or asynchronous."""
    made: Twin = request.param
    return made
