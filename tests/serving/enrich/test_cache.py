"""The cache of the endpoint's answers: who shares it, what it keeps, and what happens if it fails."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import fakeredis
import pytest

from serving.enrich.agent import Prompts
from serving.enrich.cache import open_cache
from serving.enrich.config import PROMPTS
from serving.enrich.product import Outcome, Product
from serving.enrich.tokens import Tokens
from serving.paths import ROOT
from tests.agent_server import PROMPTS as TEXTS
from tests.agent_server import AgentServer, Reply, sensible
from tests.asking import until
from tests.serving.enrich.scripts import JPEG, MUG, SECRET, WRITTEN_MUG, MakeAgent, enrich, numbers


@pytest.fixture
def redis_url() -> Iterator[str]:
    with fakeredis.TcpFakeServer(("127.0.0.1", 0)) as redis:
        threading.Thread(target=redis.serve_forever, daemon=True).start()
        yield f"redis://127.0.0.1:{redis.server_address[1]}/0"
        redis.shutdown()


@pytest.mark.parametrize("kind", ["file", "redis"])
def test_agents_share_a_cache(make_agent: MakeAgent, server: AgentServer, redis_url: str, kind: str) -> None:
    settings = {"cache": redis_url} if kind == "redis" else {}
    assert enrich(make_agent(**settings)) == WRITTEN_MUG
    another = make_agent(**settings)
    assert enrich(another) == WRITTEN_MUG
    assert numbers(another).of("cache", result="hit") == server.count() == 2


@pytest.mark.parametrize("change", ["model", "options", "prompts", "product", "image"])
def test_another_question_is_another_call(
    make_agent: MakeAgent, server: AgentServer, tmp_path: Path, change: str
) -> None:
    enrich(make_agent(vision=True), MUG, JPEG)
    for role, prompt in TEXTS.items():
        (tmp_path / f"{role}.md").write_text(prompt + "Be brief.\n")
    changes: dict[str, dict[str, Any]] = {
        "model": {"model": "other"},
        "options": {"options": {"seed": 1}},
        "prompts": {"prompts": tmp_path},
    }
    mug = Product("coffee mug", "Other mug", "", {}) if change == "product" else MUG
    again = make_agent(vision=True, **changes.get(change, {}))
    enrich(again, mug, JPEG + b"!" if change == "image" else JPEG)
    assert server.count() == 4
    assert (again.prompts.version == Prompts.read(PROMPTS).version) == (change != "prompts")


def test_failures_are_not_cached(make_agent: MakeAgent, server: AgentServer) -> None:
    server.script = lambda call: Reply("{")
    agent = make_agent()
    assert enrich(agent)[2] == Outcome.UNANSWERED
    server.script = sensible
    assert enrich(agent) == WRITTEN_MUG


def test_a_cache_that_fails_costs_calls_only(make_agent: MakeAgent, server: AgentServer, tmp_path: Path) -> None:
    agent = make_agent()
    with closing(sqlite3.connect(tmp_path / "agent.sqlite")) as other:
        other.execute("DROP TABLE answers")
    assert enrich(agent) == WRITTEN_MUG
    assert numbers(agent).of("cache", result="error") == 4


def test_a_cache_that_cannot_be_opened_is_an_error(make_agent: MakeAgent, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, and too long to be an empty one " * 30)
    with pytest.raises(OSError, match=r"cannot open .*notes\.txt: file is not a database"):
        make_agent(cache=str(tmp_path / "notes.txt"))
    with pytest.raises(OSError, match=r"cannot open .*below"):
        make_agent(cache=str(tmp_path / "notes.txt" / "below"))


def test_threads_of_several_agents_share_a_file(tmp_path: Path) -> None:
    caches = [open_cache(str(tmp_path / "new" / "shared.sqlite")) for _ in range(4)]
    barrier = threading.Barrier(len(caches))

    def write(mine: int) -> None:
        barrier.wait()
        for number in range(100):
            caches[mine].put(f"{mine}/{number}", f"answer {number}")

    with ThreadPoolExecutor(len(caches)) as pool:
        list(pool.map(write, range(len(caches))))
    assert all(caches[0].get(f"{mine}/99") == "answer 99" for mine in range(len(caches)))
    for one in caches:
        one.close()


def test_a_redis_that_is_down_costs_calls_only(make_agent: MakeAgent, caplog: pytest.LogCaptureFixture) -> None:
    agent = make_agent(cache=f"redis://:{SECRET}@127.0.0.1:1/0")
    assert enrich(agent) == WRITTEN_MUG
    assert numbers(agent).of("cache", result="error") == 4
    assert SECRET not in caplog.text


def test_an_invalid_redis_url_is_an_error_without_its_password(make_agent: MakeAgent) -> None:
    with pytest.raises(OSError, match="the agent's cache: expected a URL such as redis://") as caught:
        make_agent(cache=f"redis://:{SECRET}@localhost:port/0")
    assert SECRET not in str(caught.value)


BULK = """
import sys
from pathlib import Path
from serving.enrich.agent import Agent
from serving.enrich.config import Config
from serving.enrich.tokens import Tokens
from tests.serving.enrich.scripts import Numbers, shop
tokens, url, cache = sys.argv[1:]
agent = Agent(Config(url, "scripted", cache=cache, concurrency=8), Tokens(Path(tokens)), Numbers())
print(sum(one.result().status == 0 for one in [agent.submit(mug) for mug in shop(50)]))
agent.close()
"""


def test_a_run_that_is_killed_repeats_only_the_calls_in_flight(
    server: AgentServer, tokens: Tokens, tmp_path: Path
) -> None:
    proceed = threading.Event()
    # 40 calls are answered. Then all eight places wait for an answer, and every answer before is in the cache.
    server.script = lambda call: Reply(sensible(call).content, after=proceed if server.count() > 40 else None)
    command = [sys.executable, "-c", BULK, str(tokens.file), server.url, str(tmp_path / "agent.sqlite")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, cwd=ROOT, env=environment) as first:
        until(lambda: server.count() == 48)
        first.send_signal(signal.SIGKILL)
    proceed.set()
    second = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert second.stdout.strip() == "50"
    # Two calls for each product, and the eight that were in flight again.
    assert server.count() == 108
