"""Asks a Prometheus what the panels of a dashboard would ask."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Series:
    labels: Mapping[str, str]
    seconds: list[float]
    values: list[float]


def panels(dashboard: str) -> list[dict[str, Any]]:
    """Of the dashboard's JSON, the rows among them."""
    found: list[dict[str, Any]] = json.loads(dashboard)["panels"]
    return found


def queries(panel: Mapping[str, Any], rate_interval: str) -> Iterator[tuple[str, str]]:
    """Legend and PromQL of each query, with values in place of Grafana's variables."""
    for target in panel.get("targets", ()):
        query = target["expr"].replace("$__rate_interval", rate_interval).replace("$instance", ".*")
        yield target["legendFormat"], query


def ask(url: str, query: str, begin: float, end: float, step: float) -> list[Series]:
    """A range query; times in seconds since the epoch.

    Raises ValueError, in Prometheus' words, for a query that it does not understand.
    """
    asked = urllib.parse.urlencode({"query": query, "start": begin, "end": end, "step": step})
    try:
        with urllib.request.urlopen(f"{url}/api/v1/query_range?{asked}", timeout=30) as answer:
            data = json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        if error.code != 400:
            raise
        with error:
            raise ValueError(f"{query}: {json.load(error)['error']}") from None
    return [
        Series(one["metric"], [float(at) for at, _ in one["values"]], [float(value) for _, value in one["values"]])
        for one in data
    ]
