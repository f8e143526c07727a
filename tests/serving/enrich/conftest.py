"""An agent for each test, on a scripted endpoint of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.enrich import agent, config
from serving.enrich.tokens import Tokens
from tests import toys
from tests.agent_server import AgentServer
from tests.serving.enrich.scripts import Numbers


@pytest.fixture(scope="session")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("tokens") / "tokenizer.json"
    toys.toy_tokenizer().save(str(file))
    return Tokens(file)


@pytest.fixture
def server() -> Iterator[AgentServer]:
    with AgentServer() as server:
        yield server


@pytest.fixture
def hire(server: AgentServer, counted: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """An agent on the scripted server, quick in everything; its cache is the test's own."""
    hired = []

    def hire(**changes: Any) -> Any:
        quick = {
            "call_seconds": 0.5,
            "item_seconds": 3.0,
            "probe_seconds": 0.1,
            "cache": str(tmp_path / "agent.sqlite"),
        }
        settings = config.Config(**{"url": server.url, "model": "scripted", **quick, **changes})
        hired.append(agent.Agent(settings, counted, Numbers()))
        return hired[-1]

    yield hire
    for one in hired:
        one.close()
