"""An agent for each test, with its own scripted endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.enrich.agent import Agent
from serving.enrich.config import Config
from serving.enrich.tokens import Tokens
from tests import toys
from tests.agent_server import AgentServer
from tests.serving.enrich.scripts import MakeAgent, Numbers


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    """A toy tokenizer with a limit of 16 tokens."""
    file = tmp_path_factory.mktemp("tokens") / "tokenizer.json"
    toys.toy_tokenizer().save(str(file))
    return Tokens(file)


@pytest.fixture
def server() -> Iterator[AgentServer]:
    with AgentServer() as server:
        yield server


@pytest.fixture
def make_agent(server: AgentServer, tokens: Tokens, tmp_path: Path) -> Iterator[MakeAgent]:
    agents: list[Agent] = []

    def make(**changes: Any) -> Agent:
        defaults = {"url": server.url, "model": "scripted", "cache": str(tmp_path / "agent.sqlite")}
        # The time-outs are long, so that no test depends on them, except those that set one.
        config = Config(**{**defaults, "probe_seconds": 0.05, "call_seconds": 60.0, "item_seconds": 120.0, **changes})
        agents.append(Agent(config, tokens, Numbers()))
        return agents[-1]

    yield make
    for agent in agents:
        agent.close()
