"""The files of a check: ``gpu.json`` with everything, and ``gpu.md`` with tables for benchmarks/RESULTS.md."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Result:
    """A step that was run, or was not."""

    name: str
    """"speed", for example"""
    model: str
    """"base", or "base, embedded-gpu" for a step with a server"""
    outcome: str
    """``ok``, or why not"""
    seconds: float = 0.0
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def wrong(self) -> list[str]:
        """What the step itself found wrong."""
        return [*find_wrong(self.found)]

    @property
    def passed(self) -> bool:
        return self.outcome == "ok" and not self.wrong


def find_wrong(found: Any) -> Iterator[str]:
    for name, value in found.items() if isinstance(found, Mapping) else ():
        yield from value if name == "wrong" else find_wrong(value)


def best_rate(found: Mapping[str, Any]) -> float:
    return max((value for name, value in found.items() if name.startswith("photos/s")), default=0.0)


def ratios(results: list[Result]) -> dict[str, float]:
    """The best rate of each server divided by the best rate of the same graphs in one process."""
    local = {result.model: best_rate(result.found) for result in results if result.name == "chain"}
    served = {result.model: best_rate(result.found) for result in results if result.name == "speed"}
    return {model: value / local[name] for model, value in served.items() if local.get(name := model.split(",")[0])}


def write(folder: Path, results: list[Result]) -> None:
    content = {
        "steps": [asdict(result) | {"wrong": result.wrong} for result in results],
        "served / in process": ratios(results),
    }
    (folder / "gpu.json").write_text(json.dumps(content, indent=2) + "\n")
    (folder / "gpu.md").write_text("\n".join(lines_of(results)) + "\n")


def lines_of(results: list[Result]) -> Iterator[str]:
    yield from ("| Step | Models | Result | Seconds |", "| --- | --- | --- | --- |")
    for result in results:
        verdict = "; ".join(result.wrong) or result.outcome
        yield f"| {result.name} | {result.model} | {verdict} | {result.seconds:.0f} |"
    yield from ("", "| Models | Step | Figure | Value |", "| --- | --- | --- | --- |")
    for result in results:
        for name, value in flat(result.found):
            yield f"| {result.model} | {result.name} | {name} | {value} |"
    for model, ratio in ratios(results).items():
        yield f"| {model} | | served / in process | {ratio:.2f} |"


def flat(found: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Figures as name and text."""
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}: ")
        elif isinstance(value, list):
            yield f"{prefix}{name}", ", ".join(map(str, value)) or "none"
        else:
            yield f"{prefix}{name}", f"{value:.5g}" if isinstance(value, float) else str(value)
