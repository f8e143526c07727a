"""What is remembered of an endpoint's answers, by whom, and for how long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from serving.enrich import agent, cache
from serving.enrich.product import Outcome, Product
from serving.paths import ROOT
from tests.agent_server import PROMPTS, AgentServer, Reply, sensible
from tests.serving.enrich.scripts import (
    JPEG,
    MUG,
    SECRET,
    WRITTEN_MUG,
    of,
    until,
)


def test_nothing_is_paid_for_twice(hire: Callable[..., Any], server: AgentServer) -> None:
    """Not by an agent that comes later, nor by one of another process: both share nothing but the file."""
    assert of(hire().enrich(MUG)) == WRITTEN_MUG
    server.stop()
    later = hire()
    assert of(later.enrich(MUG)) == WRITTEN_MUG
    assert later.meter.of("cache", result="hit") == server.count() == 2


def test_one_call_in_flight_for_the_same(hire: Callable[..., Any], server: AgentServer) -> None:
    server.script = lambda call: Reply(sensible(call).content, delay=0.1)
    mugs = hire()
    with ThreadPoolExecutor(10) as pool:
        assert {of(one) for one in pool.map(lambda _: mugs.enrich(MUG), range(10))} == {WRITTEN_MUG}
    assert server.count() == 2


@pytest.mark.parametrize("change", ["model", "options", "prompts", "product", "image"])
def test_what_is_another_question_is_asked_anew(
    hire: Callable[..., Any], server: AgentServer, tmp_path: Path, change: str
) -> None:
    hire(vision=True).enrich(MUG, JPEG)
    for role, prompt in PROMPTS.items():
        (tmp_path / f"{role}.md").write_text(prompt + "Be brief.\n")
    changes: dict[str, dict[str, Any]] = {
        "model": {"model": "other"},
        "options": {"options": {"seed": 1}},
        "prompts": {"prompts": tmp_path},
    }
    mug = Product("coffee mug", "Other mug", "", {}) if change == "product" else MUG
    again = hire(vision=True, **changes.get(change, {}))
    again.enrich(mug, JPEG + b"!" if change == "image" else JPEG)
    assert server.count() == 4
    assert (again.prompts.version == agent.Prompts(PROMPTS).version) == (change != "prompts")


def test_failures_are_not_remembered(hire: Callable[..., Any], server: AgentServer) -> None:
    server.script = lambda call: Reply("{")
    mugs = hire()
    assert mugs.enrich(MUG).status == Outcome.UNANSWERED
    server.script = sensible
    assert of(mugs.enrich(MUG)) == WRITTEN_MUG


def test_a_cache_that_breaks_costs_calls_alone(hire: Callable[..., Any], server: AgentServer, tmp_path: Path) -> None:
    mugs = hire()
    with cache.sqlite3.connect(tmp_path / "agent.sqlite") as other:
        other.execute("DROP TABLE answers")
    other.close()
    assert of(mugs.enrich(MUG)) == WRITTEN_MUG
    assert mugs.meter.of("cache", result="error") == 4


def test_a_cache_that_cannot_be_is_told_at_once(hire: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, and long enough to be none " * 30)
    with pytest.raises(OSError, match=r"notes\.txt cannot be opened: file is not a database"):
        hire(cache=str(tmp_path / "notes.txt"))
    with pytest.raises(OSError, match="below cannot be opened"):
        hire(cache=str(tmp_path / "notes.txt" / "below"))


def test_threads_of_several_agents_share_a_file(tmp_path: Path) -> None:
    caches = [cache.open_cache(str(tmp_path / "new" / "shared.sqlite")) for _ in range(4)]
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


def test_replicas_share_a_redis(hire: Callable[..., Any], server: AgentServer) -> None:
    fakeredis = pytest.importorskip("fakeredis")
    redis = fakeredis.TcpFakeServer(("127.0.0.1", 0))
    threading.Thread(target=redis.serve_forever, daemon=True).start()
    where = f"redis://127.0.0.1:{redis.server_address[1]}/0"
    assert of(hire(cache=where).enrich(MUG)) == WRITTEN_MUG
    another = hire(cache=where)
    assert of(another.enrich(MUG)) == WRITTEN_MUG
    assert another.meter.of("cache", result="hit") == server.count() == 2
    redis.shutdown()
    redis.server_close()


def test_a_redis_that_is_not_there_costs_calls_alone(
    hire: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    mugs = hire(cache=f"redis://:{SECRET}@127.0.0.1:1/0")
    assert of(mugs.enrich(MUG)) == WRITTEN_MUG
    assert mugs.meter.of("cache", result="error") == 4
    assert SECRET not in caplog.text


def test_a_cache_of_no_redis_is_told_without_its_password(hire: Callable[..., Any]) -> None:
    with pytest.raises(OSError, match="the agent's cache: expected redis://") as caught:
        hire(cache=f"redis://:{SECRET}@localhost:port/0")
    assert SECRET not in str(caught.value)


BULK = """
import sys
from serving.enrich import agent, config
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from serving.enrich.tokens import Tokens
from tests.serving.enrich.scripts import Numbers, shop
where, url, cache = sys.argv[1:]
settings = config.Config(url=url, model="scripted", cache=cache, concurrency=8)
hired = agent.Agent(settings, Tokens(Path(where)), Numbers())
with ThreadPoolExecutor(16) as pool:
    print(sum(one.status == 0 for one in pool.map(hired.enrich, shop(150))))
hired.close()
"""


def test_a_run_that_is_killed_repeats_what_was_in_flight_alone(
    server: AgentServer, counted: Any, tmp_path: Path
) -> None:
    server.script = lambda call: Reply(sensible(call).content, delay=0.01)
    command = [sys.executable, "-c", BULK, str(counted.file), server.url, str(tmp_path / "agent.sqlite")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    first = subprocess.Popen(command, cwd=ROOT, env=environment)
    until(lambda: server.count() > 100, 20)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert 100 < server.count() < 300
    second = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert second.stdout.strip() == "150"
    # Two calls for each product. Eight at most were in flight when the process died, and their answers are lost.
    assert 300 <= server.count() <= 308
