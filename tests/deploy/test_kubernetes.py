"""What kustomize renders is valid against the API's schemas and consistent. It was never applied to a cluster."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from serving.paths import ROOT
from serving.server.limits import DRAIN_SECONDS, LOAD_SECONDS
from serving.server.server import SHARED_MEMORY_BYTES
from serving.server.start import parse_arguments

FOLDER = ROOT / "deploy" / "kubernetes"
NGC = "ngc-onnxruntime-cuda"
VERSIONS = ("1.32", kubernetes_validate.latest_version())
"""Of the API: the oldest that is supported, and the newest whose schemas are installed."""
RENDERED = {
    "base": ("base",),
    "cpu": ("overlays/cpu",),
    "gpu": ("overlays/gpu",),
    "gpu and agent and tls": ("overlays/gpu", "agent", "tls"),
    "base and tls": ("base", "tls"),
    "base and keda": ("base", "keda", "monitoring"),
    "engines": ("engines",),
    "kserve": ("kserve",),
}
"""The folder that is rendered, and the components that are added to it."""
SERVING = [name for name in RENDERED if name not in ("engines", "kserve")]
REQUIRED = {
    "ScaledObject": ["scaleTargetRef.name", "triggers.0.type", "triggers.0.metadata.query", "triggers.0.metricType"],
    "PodMonitor": ["selector.matchLabels", "podMetricsEndpoints.0.port"],
    "ServingRuntime": ["supportedModelFormats.0.name", "protocolVersions.0", "containers.0.image"],
    "InferenceService": ["predictor.model.modelFormat.name", "predictor.model.runtime", "predictor.model.storageUri"],
}
"""Required fields of the kinds whose schemas are not installed."""

pytestmark = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl renders the overlays")


def kustomize(folder: str | Path) -> list[dict[str, Any]]:
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # kustomize warns here of deprecated fields
    return list(yaml.safe_load_all(done.stdout))


@cache
def render(name: str) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        to = os.path.relpath(FOLDER, os.path.realpath(folder))  # kustomize refuses absolute paths
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"{to}/{RENDERED[name][0]}"],
            "components": [f"{to}/components/{component}" for component in RENDERED[name][1:]],
        }
        Path(folder, "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return kustomize(folder)


def of_kind(name: str, kind: str) -> list[dict[str, Any]]:
    return [resource for resource in render(name) if resource["kind"] == kind]


def pods(name: str) -> Iterator[dict[str, Any]]:
    """The specs of all pods. A ServingRuntime of KServe holds one directly."""
    for resource in render(name):
        if resource["kind"] in ("Deployment", "Job"):
            yield resource["spec"]["template"]["spec"]
        elif resource["kind"] == "ServingRuntime":
            yield resource["spec"]


def at(value: Any, path: str) -> Any:
    for step in path.split("."):
        value = value[int(step) if step.isdigit() else step]
    return value


def all_label_selectors(value: Any) -> Iterator[dict[str, str]]:
    """Those of our pods, at any depth."""
    if isinstance(value, dict):
        labels = value.get("matchLabels", {})
        if labels.get("app.kubernetes.io/name") == "vlclip":
            yield labels
        for inner in value.values():
            yield from all_label_selectors(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from all_label_selectors(inner)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", RENDERED)
def test_every_resource_is_valid(name: str, version: str) -> None:
    for resource in render(name):
        if resource["kind"] in REQUIRED:
            for path in REQUIRED[resource["kind"]]:
                assert at(resource["spec"], path), f"{resource['kind']} without {path}"
        else:
            kubernetes_validate.validate(resource, version, strict=True)


def test_the_ingress_of_the_documentation_is_valid() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/deployment.md").read_text(), re.MULTILINE | re.DOTALL)
    (ingress,) = [block for block in blocks if "kind: Ingress" in block]
    kubernetes_validate.validate(yaml.safe_load(ingress), VERSIONS[-1], strict=True)


@pytest.mark.parametrize("name", SERVING)
def test_selectors_match_the_labels_of_the_pods(name: str) -> None:
    labels = of_kind(name, "Deployment")[0]["spec"]["template"]["metadata"]["labels"]
    selectors = [service["spec"]["selector"] for service in of_kind(name, "Service")]
    selectors += all_label_selectors(render(name))
    assert len(selectors) >= 7  # two services, the deployment, the budget, the policy, spread, anti-affinity
    assert all(selector.items() <= labels.items() for selector in selectors)


@pytest.mark.parametrize("name", SERVING)
def test_services_and_policies_name_ports_of_the_container(name: str) -> None:
    ports = {port["name"]: port["containerPort"] for port in next(pods(name))["containers"][0]["ports"]}
    asked = [port["targetPort"] for service in of_kind(name, "Service") for port in service["spec"]["ports"]]
    for policy in of_kind(name, "NetworkPolicy"):
        asked += [port["port"] for rule in policy["spec"].get("ingress", []) for port in rule["ports"]]
    asked += [one["port"] for monitor in of_kind(name, "PodMonitor") for one in monitor["spec"]["podMetricsEndpoints"]]
    assert set(asked) == set(ports)


def test_tls_leaves_no_unencrypted_port_open_to_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "gpu and agent and tls"
    container = next(pods(name))["containers"][0]
    monkeypatch.setattr(sys, "argv", ["serve", *container["args"]])
    given = parse_arguments()
    files = [Path("/tls", name) for name in ("tls.crt", "tls.key", "ca.crt")]
    assert [given.tls_cert, given.tls_key, given.tls_client_ca] == files
    assert {port["name"] for port in container["ports"]} == {"grpc", "metrics"}


def test_components_may_be_listed_before_the_patches_of_an_overlay(tmp_path: Path) -> None:
    """Like the commented lines of overlays/gpu. An overlay built on overlays/gpu lists them after its patches."""
    folder = shutil.copytree(FOLDER, tmp_path / "kubernetes") / "overlays" / "gpu"
    file = folder / "kustomization.yaml"
    offered = file.read_text().replace("# - ../../components/", "- ../../components/")
    assert offered != file.read_text()
    file.write_text(offered)
    before = next(one for one in kustomize(folder) if one["kind"] == "Deployment")["spec"]["template"]["spec"]
    after = next(pods("gpu and agent and tls"))
    for parts in ("args", "ports", "env", "volumeMounts"):
        assert sorted(before["containers"][0][parts], key=str) == sorted(after["containers"][0][parts], key=str)


def test_metrics_have_the_job_that_the_rules_select() -> None:
    (monitor,), (deployment,) = of_kind("gpu", "PodMonitor"), of_kind("gpu", "Deployment")
    job = deployment["spec"]["template"]["metadata"]["labels"][monitor["spec"]["jobLabel"]]
    rules = (FOLDER.parent / "prometheus" / "rules" / "vlclip.yml").read_text()
    assert set(re.findall('job="([^"]*)"', rules)) == {job}


@pytest.mark.parametrize("name", RENDERED)
def test_pods_are_hardened(name: str) -> None:
    for pod in pods(name):
        for container in pod["containers"]:
            rights = {**pod.get("securityContext", {}), **container["securityContext"]}
            assert rights["runAsNonRoot"]
            assert rights["runAsUser"] >= 10000
            assert rights["seccompProfile"] == {"type": "RuntimeDefault"}
            assert rights["readOnlyRootFilesystem"]
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]
            gpus = [container["resources"][bound].get("nvidia.com/gpu") for bound in ("requests", "limits")]
            assert gpus == ["1" if name.startswith(("gpu", "engines", "kserve")) else None] * 2
            assert container["image"].startswith("vlclip" if "base" in name else "registry.example.com/vlclip")
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
            assert "emptyDir" in mounts["/tmp"]
            assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"
            shared = int(mounts["/dev/shm"]["emptyDir"]["sizeLimit"].removesuffix("Gi")) << 30
            assert shared >= SHARED_MEMORY_BYTES
            assert mounts.keys() == {mount["mountPath"] for mount in container["volumeMounts"]}
            assert volumes.keys() == {mount["name"] for mount in container["volumeMounts"]}
        if name != "kserve":
            assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", [*SERVING, "kserve"])
def test_probes_ask_the_models_and_are_fast_enough(name: str) -> None:
    container = next(pods(name))["containers"][0]
    probes = {kind: container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")}
    for kind, probe in probes.items():
        asked = "--live" if kind == "liveness" else "--ready"
        assert probe["exec"]["command"] == ["python3", "-m", "serving", "probe", asked]
    ready, startup = probes["readiness"], probes["startup"]
    assert ready["periodSeconds"] * ready["failureThreshold"] + ready["timeoutSeconds"] <= 10
    assert startup["periodSeconds"] * startup["failureThreshold"] > LOAD_SECONDS


@pytest.mark.parametrize("name", [*SERVING, "kserve"])
def test_a_pod_has_time_to_answer_requests_in_flight(name: str) -> None:
    pod = of_kind(name, "InferenceService")[0]["spec"]["predictor"] if name == "kserve" else next(pods(name))
    _, seconds = ("", 0) if name == "kserve" else pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    # `serving start` drains the pipelines, then gives Triton the same time and 10 s.
    assert pod["terminationGracePeriodSeconds"] >= int(seconds) + 2 * DRAIN_SECONDS + 10


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [("cpu", "threads", "2"), ("gpu", "profile", NGC), ("kserve", "profile", NGC)],
)
def test_arguments_are_those_of_the_server(name: str, field: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    container = next(pods(name))["containers"][0]
    monkeypatch.setattr(sys, "argv", ["serve", *container["args"]])
    assert getattr(parse_arguments(), field) == value
    # By default, ONNX Runtime starts a thread for each core of the node.
    assert field != "threads" or value == container["resources"]["requests"]["cpu"]


@pytest.mark.parametrize("name", ["cpu", "gpu", "base and keda"])
def test_one_autoscaler_scales_the_deployment(name: str) -> None:
    scalers = of_kind(name, "HorizontalPodAutoscaler") + of_kind(name, "ScaledObject")
    (deployment,) = of_kind(name, "Deployment")
    assert [scaler["spec"]["scaleTargetRef"]["name"] for scaler in scalers] == [deployment["metadata"]["name"]]
    assert "replicas" not in deployment["spec"]


def test_images_have_the_package_of_the_agents_cache() -> None:
    """Without it the model does not load, so no pod becomes ready."""
    variables = next(pods("gpu and agent and tls"))["containers"][0]["env"]
    (cache,) = [one["value"] for one in variables if one["name"] == "VLCLIP_AGENT_CACHE"]
    package = cache.partition("://")[0]
    extra = re.search(r"^agent = \[(.*)\]$", (ROOT / "serving" / "pyproject.toml").read_text(), re.MULTILINE)
    assert extra
    assert f'"{package}>=' in extra[1]
    for file in ("Dockerfile", "Dockerfile.cpu"):
        assert re.search(r"'\./serving\[.*agent\]'", (ROOT / "deploy" / file).read_text())


@pytest.mark.parametrize("name", RENDERED)
def test_no_secret_is_in_the_manifests(name: str) -> None:
    assert not of_kind(name, "Secret")
    for pod in pods(name):
        for variable in pod["containers"][0].get("env", []):
            if variable["name"].endswith("_KEY"):
                assert variable["valueFrom"]["secretKeyRef"]["name"] == "vlclip"
