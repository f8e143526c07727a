"""A real Prometheus reads what a real server says: our metrics are there, and rules and panels find their data."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deploy.grafana.__main__ import FILE
from deploy.grafana.prometheus import Series, ask, panels, queries

from deploy.grafana.dashboard import build
from serving.paths import ROOT
from serving.server.server import Ports, Server, replace_zeros
from tests.agent_server import AgentServer
from tests.asking import ask_grpc
from tests.pictures import bad_files, encode, picture
from tests.serving.enrich.scripts import until

FOLDER = ROOT / "deploy" / "prometheus"
PROMTOOL, PROMETHEUS = shutil.which("promtool"), shutil.which("prometheus")
needs_promtool = pytest.mark.skipif(not PROMTOOL, reason="no promtool: apt install prometheus")
needs_prometheus = pytest.mark.skipif(not PROMETHEUS, reason="no prometheus: apt install prometheus")
PHOTO = encode(picture(), "JPEG")
BAD = bad_files()
ABSENT = {
    "GPU": "no GPU here",
    "GPU memory": "no GPU here",
    "GPU power": "no GPU here",
    "a day before": "this Prometheus is seconds old",
}


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run([str(PROMTOOL), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_config_and_rules_are_valid() -> None:
    promtool("check", "config", FOLDER / "prometheus.yml")
    promtool("check", "rules", *FOLDER.glob("rules/*.yml"))


@needs_promtool
@pytest.mark.parametrize("file", sorted(FOLDER.glob("tests/*.yml")), ids=lambda file: file.stem)
def test_alerts_fire_on_trouble_and_on_nothing_else(file: Path) -> None:
    promtool("test", "rules", file)


def test_every_alert_has_been_seen_firing() -> None:
    alerts = re.findall(r"alert: (\w+)", (FOLDER / "rules" / "vlclip.yml").read_text())
    fired = re.findall(r'{alertname="(\w+)"', "".join(file.read_text() for file in FOLDER.glob("tests/*.yml")))
    assert alerts
    assert set(alerts) == set(fired)


def test_dashboard_is_up_to_date() -> None:
    assert FILE.read_text(encoding="utf-8") == build(), "run: python -m deploy.grafana"


@pytest.fixture(scope="module")
def served(toy_repositories: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with AgentServer() as model, pytest.MonkeyPatch.context() as environment:
        environment.setenv("VLCLIP_AGENT_URL", model.url)
        environment.setenv("VLCLIP_AGENT_MODEL", "scripted")
        environment.setenv("VLCLIP_AGENT_CACHE", str(tmp_path_factory.mktemp("agent") / "agent.sqlite"))
        with Server.start(toy_repositories) as server:
            yield server


@pytest.fixture(scope="module")
def prometheus(served: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address, once it has seen a few seconds of all kinds of requests. Its config is ours, at another pace."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = (FOLDER / "prometheus.yml").read_text().replace("15s", "1s").replace("rules/", f"{FOLDER}/rules/")
    target = served.metrics_url.removeprefix("http://").removesuffix("/metrics")
    (folder / "prometheus.yml").write_text(config.replace("triton:8002", target))
    address = f"127.0.0.1:{replace_zeros(Ports()).http}"
    command = [
        str(PROMETHEUS),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            until(lambda: bool(samples(f"http://{address}", 'up{job="vlclip"} == 1')), 20)
            for _ in range(4):
                send(served)
                time.sleep(1)
            yield f"http://{address}"
        finally:
            process.terminate()


def send(server: Server) -> None:
    """Four images to ground, one of them without a prompt, one broken and one too large; a whole image; texts."""
    url = server.grpc_url
    files = [PHOTO, PHOTO, BAD["text"][0], BAD["100 megapixels"][0]]
    ask_grpc(url, "product_image", IMAGE=files, PRODUCT_TYPE=[b"mug", b"", b"mug", b"mug"])
    ask_grpc(url, "ground", IMAGE=[PHOTO], PRODUCT_TYPE=[b"lamp"])
    ask_grpc(url, "whole_image", IMAGE=[PHOTO])
    ask_grpc(url, "product_text", TEXT=[b"a red mug", b"word " * 100])
    # Another one each time, which no cache knows.
    product = {"product_type": "mug", "colour": "red", "title": f"mug {time.monotonic_ns()}"}
    ask_grpc(url, "enriched_text", PRODUCT=[json.dumps(product).encode()], IMAGE=[b""])


def samples(url: str, query: str) -> list[Series]:
    try:
        return ask(url, query, time.time() - 1, time.time(), 1)
    except OSError:
        return []


def value(url: str, query: str) -> float:
    (one,) = samples(url, query)
    return one.values[-1]


@needs_prometheus
def test_what_the_leaves_see_is_counted(prometheus: str, served: Server) -> None:
    counted = {
        'vlclip_grounding_images_total{status="grounded"}': 2,
        'vlclip_grounding_images_total{status="whole_image"}': 1,
        'vlclip_grounding_images_total{status="not_an_image"}': 1,
        'vlclip_grounding_images_total{status="too_large"}': 1,
        "vlclip_grounding_score_count": 3,
        'vlclip_grounding_score_bucket{le=~"0|0.0"}': 1,
        'vlclip_decoded_images_total{result="decoded"}': 4,
        'vlclip_decoded_images_total{result="not_an_image"}': 1,
        'vlclip_decoded_images_total{result="too_large"}': 1,
        "vlclip_decoded_pixels_sum": 4 * 120 * 90,
        'vlclip_text_tokens_count{input="text"}': 3,
        'vlclip_text_tokens_count{input="product_type"}': 5,
        'vlclip_truncated_texts_total{input="text"}': 1,
        'vlclip_agent_items{status="written"}': 1,
    }
    # What was sent before is gathered, and scraped, by then.
    time.sleep(3)
    before = {query: value(prometheus, query) for query in counted}
    send(served)
    until(lambda: {query: value(prometheus, query) - before[query] for query in counted} == counted, 20)


@needs_prometheus
def test_rules_are_evaluated(prometheus: str) -> None:
    with urllib.request.urlopen(f"{prometheus}/api/v1/rules") as answer:
        groups: list[dict[str, Any]] = json.load(answer)["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}
    for rule in rules:
        if rule["type"] == "alerting":
            assert rule["labels"]["severity"] in ("page", "ticket")
            assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['name'].lower()}"
        else:
            assert samples(prometheus, rule["name"]), rule["name"]


@needs_prometheus
@pytest.mark.parametrize(
    "panel", [one for one in panels(build()) if one["type"] != "row"], ids=lambda panel: panel["title"]
)
def test_every_panel_has_data(prometheus: str, panel: dict[str, Any]) -> None:
    for legend, query in queries(panel, "10s"):
        found = samples(prometheus, query)
        if panel["title"] in ABSENT or legend in ABSENT:
            assert not found
        else:
            assert any(number == number for one in found for number in one.values), query
