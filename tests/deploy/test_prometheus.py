"""A real Prometheus scrapes a real server: the rules and the dashboard find the metrics that they ask for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.paths import ROOT
from serving.server.options import FREE_PORTS, replace_zeros
from serving.server.server import Server
from serving.triton_metrics import parse_metrics
from tests.agent_server import AgentServer
from tests.asking import ask_grpc, until
from tests.pictures import bad_files, encode, picture

FOLDER = ROOT / "deploy" / "prometheus"
RULES = FOLDER / "rules" / "vlclip.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "vlclip.json"
PROMTOOL, PROMETHEUS = shutil.which("promtool"), shutil.which("prometheus")
needs_promtool = pytest.mark.skipif(not PROMTOOL, reason="no promtool: apt install prometheus")
needs_prometheus = pytest.mark.skipif(not PROMETHEUS, reason="no prometheus: apt install prometheus")
PHOTO = encode(picture(), "JPEG")
BAD = bad_files()
GPU_METRICS = {"nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes", "nv_gpu_power_usage"}
"""Triton publishes these only where there is a GPU."""
SENT = {
    ("vlclip_grounding_images_total", "grounded"): 2,
    ("vlclip_grounding_images_total", "whole_image"): 1,
    ("vlclip_grounding_images_total", "not_an_image"): 1,
    ("vlclip_grounding_images_total", "too_large"): 1,
    ("vlclip_grounding_score_count", ""): 3,
    ("vlclip_decoded_images_total", "decoded"): 4,
    ("vlclip_decoded_images_total", "not_an_image"): 1,
    ("vlclip_decoded_images_total", "too_large"): 1,
    ("vlclip_decoded_pixels_sum", ""): 4 * 120 * 90,
    ("vlclip_text_tokens_count", "text"): 3,
    ("vlclip_text_tokens_count", "product_type"): 5,
    ("vlclip_truncated_texts_total", "text"): 1,
    ("vlclip_agent_items", "written"): 1,
}
"""What one call of `send` adds to each metric, by the label that tells its series apart."""


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run([str(PROMTOOL), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def recorded_names() -> set[str]:
    return set(re.findall(r"record: (\S+)", RULES.read_text()))


def queries(rate_interval: str = "10s") -> dict[str, str]:
    """The dashboard's PromQL by title and legend, with values in place of Grafana's variables."""
    return {
        f"{panel['title']}: {target['legendFormat']}": target["expr"]
        .replace("$__rate_interval", rate_interval)
        .replace("$instance", ".*")
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel.get("targets", ())
    }


@needs_promtool
def test_config_and_rules_are_valid() -> None:
    promtool("check", "config", FOLDER / "prometheus.yml")
    promtool("check", "rules", *FOLDER.glob("rules/*.yml"))


@needs_promtool
def test_queries_of_the_dashboard_are_valid(tmp_path: Path) -> None:
    rules = [{"record": f"query:{n}", "expr": query} for n, query in enumerate(queries().values())]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "queries.yml")


@needs_promtool
@pytest.mark.parametrize("file", sorted(FOLDER.glob("tests/*.yml")), ids=lambda file: file.stem)
def test_each_alert_fires_when_it_should_and_only_then(file: Path) -> None:
    promtool("test", "rules", file)


def test_every_alert_has_a_test() -> None:
    alerts = re.findall(r"alert: (\w+)", RULES.read_text())
    fired = re.findall(r'{alertname="(\w+)"', "".join(file.read_text() for file in FOLDER.glob("tests/*.yml")))
    assert alerts
    assert set(alerts) == set(fired)


def test_every_alert_has_a_severity_and_a_section_of_the_runbook() -> None:
    headings = re.findall(r"^### (Vlclip\w+)", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    alerts = {rule["alert"]: rule for rule in rules if "alert" in rule}
    assert list(alerts) == headings
    for name, rule in alerts.items():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"


@pytest.fixture(scope="module")
def served(toy_repositories: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with AgentServer() as model, pytest.MonkeyPatch.context() as environment:
        environment.setenv("VLCLIP_AGENT_URL", model.url)
        environment.setenv("VLCLIP_AGENT_MODEL", "scripted")
        environment.setenv("VLCLIP_AGENT_CACHE", str(tmp_path_factory.mktemp("agent") / "agent.sqlite"))
        with Server.start(toy_repositories) as server:
            yield server


def send(server: Server) -> None:
    """Send what `SENT` counts: among others an image without a product type, a broken one and one that is too large."""
    url = server.grpc_url
    files = [PHOTO, PHOTO, BAD["text"][0], BAD["100 megapixels"][0]]
    ask_grpc(url, "product_image", IMAGE=files, PRODUCT_TYPE=[b"mug", b"", b"mug", b"mug"])
    ask_grpc(url, "ground", IMAGE=[PHOTO], PRODUCT_TYPE=[b"lamp"])
    ask_grpc(url, "whole_image", IMAGE=[PHOTO])
    ask_grpc(url, "product_text", TEXT=[b"a red mug", b"word " * 100])
    # A new product each time, so that no cached answer serves it.
    product = {"product_type": "mug", "colour": "red", "title": f"mug {time.monotonic_ns()}"}
    ask_grpc(url, "enriched_text", PRODUCT=[json.dumps(product).encode()], IMAGE=[b""])


def published(server: Server) -> Counter[tuple[str, str]]:
    """The samples on the metrics port, summed by name and by the one label value that `SENT` tells them apart by."""
    found: Counter[tuple[str, str]] = Counter()
    with urllib.request.urlopen(server.metrics_url) as answer:
        for one in parse_metrics(answer.read().decode()):
            kind = next(
                (one.labels[label] for label in ("status", "result", "input", "model") if label in one.labels), ""
            )
            found[one.name, kind] += one.value  # type: ignore[assignment]
    return found


def is_settled(found: Counter[tuple[str, str]]) -> bool:
    """Whether the leaves, which publish with a delay, have counted everything that Triton has."""

    def total(name: str) -> float:
        return sum(value for (key, _), value in found.items() if key == name)

    rows = {model: value for (name, model), value in found.items() if name == "nv_inference_count"}
    return (
        total("vlclip_grounding_images_total") == rows["product_image"] + rows["ground"]
        and total("vlclip_decoded_images_total") == rows["decode"]
        and total("vlclip_text_tokens_count") == rows["tokenize"] + rows["tokenize_prompt"] - rows["whole_image"]
    )


def test_metrics_count_what_was_sent_and_the_dashboard_names_no_others(served: Server) -> None:
    written = "vlclip_agent_items", "written"
    until(lambda: is_settled(published(served)))
    before = published(served)
    send(served)
    until(lambda: is_settled(published(served)) and published(served)[written] > before[written])
    after = published(served)
    assert {key: after[key] - before[key] for key in SENT} == SENT

    known = {name for name, _ in after} | recorded_names() | GPU_METRICS | {"up"}
    for title, query in queries().items():
        named = set(re.findall(r"\b(?:nv_|vlclip_|model:|vlclip:|instance:)[\w:]+|\bup\b", query))
        assert named, title
        assert named <= known, title


@pytest.fixture(scope="module")
def prometheus(served: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus with our config, which scrapes every second instead of every 15."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = (FOLDER / "prometheus.yml").read_text().replace("15s", "1s").replace("rules/", f"{FOLDER}/rules/")
    target = served.metrics_url.removeprefix("http://").removesuffix("/metrics")
    (folder / "prometheus.yml").write_text(config.replace("triton:8002", target))
    address = f"127.0.0.1:{replace_zeros(FREE_PORTS).http}"
    command = [str(PROMETHEUS), f"--config.file={folder / 'prometheus.yml'}", f"--web.listen-address={address}"]
    command += [f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            until(lambda: is_scraping(f"http://{address}"))
            yield f"http://{address}"
        finally:
            process.terminate()


def is_scraping(url: str) -> bool:
    try:
        return has_data(url, 'up{job="vlclip"} == 1')
    except urllib.error.URLError:
        return False


def has_data(url: str, query: str) -> bool:
    """Whether the result of the query has a number that is not NaN. Raises HTTPError for an invalid query."""
    with urllib.request.urlopen(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}") as answer:
        return any(one["value"][1] != "NaN" for one in json.load(answer)["data"]["result"])


@needs_prometheus
def test_rules_and_panels_find_data(prometheus: str, served: Server) -> None:
    recorded = {name: name for name in recorded_names()}
    wanted = {**recorded, **{title: query for title, query in queries().items() if "nv_gpu" not in query}}
    del wanted["No product found: a day before"]
    empty = wanted

    def every_query_has_data() -> bool:
        nonlocal empty
        send(served)
        empty = {title: query for title, query in empty.items() if not has_data(prometheus, query)}
        return not empty

    try:
        until(every_query_has_data)
    except AssertionError:
        raise AssertionError(f"no data for {empty}") from None
    with urllib.request.urlopen(f"{prometheus}/api/v1/rules") as answer:
        groups: list[dict[str, Any]] = json.load(answer)["data"]["groups"]
    unhealthy = {
        rule["name"]: rule.get("lastError") for group in groups for rule in group["rules"] if rule["health"] != "ok"
    }
    assert unhealthy == {}
