"""The agent in the real server: failures of its endpoint, slow answers, overload, photos and metrics."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import InferenceServerClient, InferInput

from serving.enrich.agent import Prompts
from serving.enrich.config import PROMPTS
from serving.enrich.product import Outcome
from serving.repository.specs import PIPELINES
from serving.server.api import Api
from serving.server.probe import TIMEOUT, check_ready
from serving.server.server import Server
from serving.server.stubs import find_stubs
from tests.agent_server import STALLED, AgentServer, Reply, sensible
from tests.asking import to_array, until
from tests.pictures import encode, picture
from tests.serving.enrich.scripts import bad_day
from vlclip import Client, OverloadedError

COLOURS = ("red", "blue", "green", "black", "white")


@pytest.fixture(scope="module")
def model() -> Iterator[AgentServer]:
    with AgentServer() as model:
        yield model


@contextmanager
def serve(repositories: list[Path], model: AgentServer, folder: Path, **settings: str) -> Iterator[Server]:
    settings |= {"URL": model.url, "MODEL": "scripted", "CACHE": str(folder / "agent.sqlite")}
    with pytest.MonkeyPatch.context() as environment:
        for name, value in settings.items():
            environment.setenv(f"VLCLIP_AGENT_{name}", value)
        with Server.start(repositories) as server:
            yield server


@pytest.fixture(scope="module")
def served(
    toy_repositories: list[Path], model: AgentServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    settings = {"CONCURRENCY": "32", "VISION": "1", "CALL_SECONDS": "3", "PROBE_SECONDS": "0.2", "FAILURES": "50"}
    with serve(toy_repositories, model, tmp_path_factory.mktemp("agent"), **settings) as server:
        yield server


def shop(number: int, kind: str = "mug") -> list[dict[str, str]]:
    return [{"product_type": kind, "title": f"{kind} {n}", "colour": COLOURS[n % 5]} for n in range(number)]


def metric(server: Server, start: str) -> float:
    """The sum over the series of the agent whose text begins like this."""
    with urllib.request.urlopen(server.metrics_url) as answer:
        lines = re.sub(r'pid="\d+",?', "", answer.read().decode()).replace("{}", "").splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"vlclip_agent_{start}"))


def test_a_thousand_products_on_a_bad_day(served: Server, model: AgentServer) -> None:
    model.script = bad_day
    items, judged = metric(served, "items{"), metric(served, 'calls{result="answered",role="evaluator"}')
    products = shop(1000)
    with Client(served.grpc_url, timeout=300) as client:
        found = client.enrich(products)
        assert found.text.tolist() == [f"{one['colour']} mug" for one in products]
        assert set(found.status.tolist()) == {Outcome.WRITTEN}
        assert found.rounds.max() == 1
        assert set(found.prompts) == {Prompts.read(PROMPTS).version}
        np.testing.assert_allclose(np.linalg.norm(found.embedding, axis=1), 1, atol=1e-4)
        paid = model.count()
        again = client.enrich(products)
        assert again.text.tolist() == found.text.tolist()
        assert model.count() == paid
    until(lambda: metric(served, "items{") - items == 2000)
    assert metric(served, 'calls{result="answered",role="evaluator"}') - judged == 1000
    # A call can time out before the endpoint has read it.
    assert metric(served, "calls{") == metric(served, 'call_seconds_bucket{le="+Inf"}') >= paid


def test_a_slow_product_delays_no_other_request(served: Server, model: AgentServer) -> None:
    proceed = threading.Event()
    model.script = lambda call: Reply(sensible(call).content, after=proceed if "snail" in str(call.data) else None)
    with Client(served.grpc_url, timeout=120) as client, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(client.enrich, shop(1, "snail"))
        until(lambda: metric(served, "calls_in_flight") == 1)
        assert client.enrich([{}, *shop(3, "cup")]).status.tolist() == [Outcome.NOT_A_PRODUCT] + [Outcome.WRITTEN] * 3
        assert not slow.done()
        proceed.set()
        assert slow.result().text.tolist() == ["red snail"]


def test_the_agent_sees_only_the_grounded_product(served: Server, model: AgentServer) -> None:
    model.script = sensible
    photos = [encode(picture(100, 160, seed=n), "JPEG") for n in range(20)]
    products = shop(22, "bowl")
    with Client(served.grpc_url, timeout=120) as client:
        found = client.enrich(products, [*photos, None, b"no image"])
    assert found.status.tolist() == [Outcome.WRITTEN] * 22
    seen: dict[str, list[bytes]] = {}
    for call in model.calls:
        if "bowl" in str(call.user):
            parts = call.user if isinstance(call.user, list) else []
            urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
            seen.setdefault(call.data["product"]["title"], []).extend(base64.b64decode(u.split(",")[1]) for u in urls)
    # The toy detector's box is the upper left quarter.
    for n, photo in enumerate(photos):
        whole = np.asarray(Image.open(io.BytesIO(photo)).convert("RGB")).astype(float)
        assert seen[f"bowl {n}"]
        for file in seen[f"bowl {n}"]:
            crop = np.asarray(Image.open(io.BytesIO(file)).convert("RGB")).astype(float)
            assert crop.shape == (whole.shape[0] // 2, whole.shape[1] // 2, 3)
            assert np.abs(crop - whole[: crop.shape[0], : crop.shape[1]]).mean() < 12
    assert not seen["bowl 20"]
    assert not seen["bowl 21"]


def test_a_slow_language_model_leaves_the_server_ready(toy_repositories: list[Path], tmp_path: Path) -> None:
    def ready() -> tuple[bool, str]:
        return check_ready(api, list(PIPELINES), TIMEOUT)

    answers: list[object] = []
    with (
        AgentServer(lambda call: STALLED) as model,
        serve(toy_repositories, model, tmp_path, CONCURRENCY="16", CALL_SECONDS="600", ITEM_SECONDS="600") as server,
        InferenceServerClient(server.grpc_url) as client,
    ):
        api = Api((server.host, server.ports.http), (server.host, server.ports.metrics))
        # Twice the number of requests that can wait for the agent.
        for product in shop(64):
            tensors = [
                InferInput(name, [1, 1], "BYTES").set_data_from_numpy(to_array([data]))
                for name, data in (("PRODUCT", json.dumps(product).encode()), ("IMAGE", b""))
            ]
            client.async_infer("enriched_text", tensors, lambda result, error: answers.append(result or error))
        until(lambda: metric(server, "calls_in_flight") == 16)
        until(lambda: api.queues()["enrich", 1].waiting == 0)
        until(lambda: ready() == (True, f"{', '.join(PIPELINES)}: correct answers"))
        assert not answers
        os.kill(next(stub.pid for stub in find_stubs(server.shm_prefix) if stub.model == "enrich"), signal.SIGSTOP)
        until(lambda: not ready()[0])
        assert "enriched_text" in ready()[1]
        until(lambda: ready()[0])


def test_more_products_than_may_wait_are_refused(
    toy_repositories: list[Path], model: AgentServer, tmp_path: Path
) -> None:
    proceed = threading.Event()
    model.script = lambda call: Reply(sensible(call).content, after=proceed)
    with (
        serve(toy_repositories, model, tmp_path, WAITING="8", CALL_SECONDS="600", ITEM_SECONDS="600") as server,
        Client(server.grpc_url) as client,
        Client(server.grpc_url, retry=None) as impatient,
        ThreadPoolExecutor(6) as threads,
    ):
        first = threads.submit(client.enrich, shop(16), timeout=120)
        until(lambda: metric(server, "calls_in_flight") > 0)
        with pytest.raises(OverloadedError, match="overloaded: 16 products wait for the agent, 8 at most: try again"):
            impatient.enrich(shop(1, "plate"))
        proceed.set()
        # A request with more products than the limit is accepted if no other product waits.
        assert (first.result().status == Outcome.WRITTEN).all()
        assert (client.enrich(shop(1, "plate"), timeout=120).status == Outcome.WRITTEN).all()
