"""What kustomize renders is valid by the API's schemas, and holds together. No cluster has seen it."""

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

import vlclip
from deploy import certificates
from deploy import probe as prober
from serving.paths import ROOT
from serving.server.api import LOAD_SECONDS
from serving.server.server import DRAIN_SECONDS, SHARED_MEMORY_BYTES
from serving.server.start import parse_arguments

FOLDER = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.32", kubernetes_validate.latest_version())
"""Of the API: the oldest that is meant, and the newest whose schemas are here."""
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
"""What is rendered, and the components that are added to it."""
SERVING = [name for name in RENDERED if name not in ("engines", "kserve")]
REQUIRED = {
    "ScaledObject": ["scaleTargetRef.name", "triggers.0.type", "triggers.0.metadata.query", "triggers.0.metricType"],
    "PodMonitor": ["selector.matchLabels", "podMetricsEndpoints.0.port"],
    "ServingRuntime": ["supportedModelFormats.0.name", "protocolVersions.0", "containers.0.image"],
    "InferenceService": ["predictor.model.modelFormat.name", "predictor.model.runtime", "predictor.model.storageUri"],
}
"""Of kinds that have no schema here, what they are nothing without."""

pytestmark = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl renders the overlays")


def kustomize(folder: str | Path) -> list[dict[str, Any]]:
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # such as that something is deprecated
    return list(yaml.safe_load_all(done.stdout))


@cache
def render(name: str) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        to = os.path.relpath(FOLDER, os.path.realpath(folder))  # kustomize takes no other
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
    """The specs of all pods: a runtime of KServe has one without what the cluster adds."""
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
    """Those that name our pods, however deep."""
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


def test_the_schemas_refuse_what_is_wrong() -> None:
    deployment = {**of_kind("base", "Deployment")[0], "spec": {"replicas": "two"}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("name", SERVING)
def test_whoever_selects_pods_selects_ours(name: str) -> None:
    labels = of_kind(name, "Deployment")[0]["spec"]["template"]["metadata"]["labels"]
    selectors = [service["spec"]["selector"] for service in of_kind(name, "Service")]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in of_kind(name, "PodDisruptionBudget")]
    selectors += [one["spec"]["podSelector"]["matchLabels"] for one in of_kind(name, "NetworkPolicy")]
    selectors += all_label_selectors(render(name))
    assert len(selectors) >= 7  # two services, the budget twice, the policy, spread, anti-affinity
    assert all(selector.items() <= labels.items() for selector in selectors)


@pytest.mark.parametrize("name", SERVING)
def test_ports_are_those_of_the_container(name: str) -> None:
    ports = {port["name"]: port["containerPort"] for port in next(pods(name))["containers"][0]["ports"]}
    asked = [port["targetPort"] for service in of_kind(name, "Service") for port in service["spec"]["ports"]]
    for policy in of_kind(name, "NetworkPolicy"):
        asked += [port["port"] for rule in policy["spec"].get("ingress", []) for port in rule["ports"]]
    asked += [one["port"] for monitor in of_kind(name, "PodMonitor") for one in monitor["spec"]["podMetricsEndpoints"]]
    assert set(asked) == set(ports)


def test_tls_leaves_no_plain_port_open() -> None:
    name = "gpu and agent and tls"
    container = next(pods(name))["containers"][0]
    assert {"--tls-cert=/tls/tls.crt", "--tls-key=/tls/tls.key", "--tls-client-ca=/tls/ca.crt"} <= {*container["args"]}
    assert {port["name"] for port in container["ports"]} == {"https", "grpc", "metrics"}


def test_components_may_come_before_an_overlay_s_own_patches(tmp_path: Path) -> None:
    """As they do in overlays/gpu, where they stand in comments; in an overlay of one's own they come behind."""
    folder = shutil.copytree(FOLDER, tmp_path / "kubernetes") / "overlays" / "gpu"
    file = folder / "kustomization.yaml"
    offered = file.read_text().replace("# - ../../components/", "- ../../components/")
    assert offered != file.read_text()
    file.write_text(offered)
    before = next(one for one in kustomize(folder) if one["kind"] == "Deployment")["spec"]["template"]["spec"]
    behind = next(pods("gpu and agent and tls"))
    for parts in ("args", "ports", "env", "volumeMounts"):
        assert sorted(before["containers"][0][parts], key=str) == sorted(behind["containers"][0][parts], key=str)


def test_probes_reach_a_pod_that_wants_certificates(toy_repositories: list[Path], tmp_path: Path) -> None:
    """What the manifest says, with a folder of ours for its secret, and free ports."""
    pems = tmp_path / "tls"
    certificates.write(pems, ["localhost"], days=1)
    for name, file in {"tls.crt": "server.pem", "tls.key": "server.key", "ca.crt": "ca.pem"}.items():
        (pems / name).symlink_to(file)
    container = next(pods("base and tls"))["containers"][0]
    command = [sys.executable, "-m", "serving.server.start", f"--model-repository={toy_repositories[0]}"]
    command += [argument.replace("=/tls/", f"={pems}/") for argument in container["args"]]
    command += [f"--{name}-port=0" for name in ("grpc", "http", "https", "metrics")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            printed = "".join(iter(process.stdout.readline, "Ctrl-C stops.\n"))
            ports = dict(re.findall(r"^  (\w+) .*:(\d+)", printed, re.MULTILINE))
            where = [f"--url=localhost:{ports['HTTP']}", f"--metrics=localhost:{ports['metrics']}"]
            for kind in ("startup", "readiness", "liveness"):
                _, _, module, *options = container[f"{kind}Probe"]["exec"]["command"]
                assert module == "serving.server.probe"
                assert prober.main([*options, *where]) == 0
            tls = vlclip.TLS(pems / "ca.pem", pems / "client.pem", pems / "client.key")
            with vlclip.Client(f"localhost:{ports['gRPC']}", tls=tls) as client:
                assert client.embed_texts("mug").embedding.shape[0] == 1
        finally:
            process.terminate()
            assert process.wait(timeout=20) == 0


def test_metrics_are_of_the_job_that_rules_look_for() -> None:
    (monitor,) = of_kind("gpu", "PodMonitor")
    (deployment,) = of_kind("gpu", "Deployment")
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


@pytest.mark.parametrize("name", ["gpu", "engines", "kserve"])
def test_gpus_are_asked_for_as_they_can_be(name: str) -> None:
    resources = next(pods(name))["containers"][0]["resources"]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == "1"


@pytest.mark.parametrize("name", [*SERVING, "kserve"])
def test_probes_ask_the_models_and_are_quick_enough(name: str) -> None:
    container = next(pods(name))["containers"][0]
    probes = {kind: container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")}
    for kind, probe in probes.items():
        asked = "--live" if kind == "liveness" else "--ready"
        assert probe["exec"]["command"] == ["python3", "-m", "serving.server.probe", asked]
    ready, startup = probes["readiness"], probes["startup"]
    assert ready["periodSeconds"] * ready["failureThreshold"] + ready["timeoutSeconds"] <= 10
    assert startup["periodSeconds"] * startup["failureThreshold"] > LOAD_SECONDS


@pytest.mark.parametrize("name", SERVING)
def test_requests_in_hand_are_answered_before_a_pod_goes(name: str) -> None:
    pod = next(pods(name))
    sleep, seconds = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    # `serving start` drains the pipelines, then gives Triton as long again and 10 s.
    assert pod["terminationGracePeriodSeconds"] >= int(seconds) + 2 * DRAIN_SECONDS + 10


def test_kserve_gives_as_much_time() -> None:
    (service,) = of_kind("kserve", "InferenceService")
    assert service["spec"]["predictor"]["terminationGracePeriodSeconds"] >= 2 * DRAIN_SECONDS + 10


NGC = "ngc-onnxruntime-cuda"


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [("cpu", "threads", "2"), ("gpu", "profile", NGC), ("kserve", "profile", NGC)],
)
def test_arguments_are_those_of_the_server(name: str, field: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = next(pods(name))["containers"][0]["args"]
    monkeypatch.setattr(sys, "argv", ["serve", *arguments])
    assert getattr(parse_arguments(), field) == value


def test_threads_are_as_many_as_the_cores_asked_for() -> None:
    """ONNX Runtime counts the cores of the node, of which the pod has a share."""
    container = next(pods("cpu"))["containers"][0]
    assert f"--threads={container['resources']['requests']['cpu']}" in container["args"]


@pytest.mark.parametrize("name", ["cpu", "gpu", "engines", "kserve"])
def test_images_are_named_in_one_place(name: str) -> None:
    for pod in pods(name):
        assert pod["containers"][0]["image"].startswith("registry.example.com/vlclip")


@pytest.mark.parametrize("name", ["cpu", "gpu", "base and keda"])
def test_one_autoscaler_scales_the_deployment(name: str) -> None:
    scalers = of_kind(name, "HorizontalPodAutoscaler") + of_kind(name, "ScaledObject")
    (deployment,) = of_kind(name, "Deployment")
    assert [scaler["spec"]["scaleTargetRef"]["name"] for scaler in scalers] == [deployment["metadata"]["name"]]
    assert "replicas" not in deployment["spec"]


def test_images_have_the_package_of_the_agent_s_cache() -> None:
    """Without it the model does not load, and with it no pod."""
    variables = next(pods("gpu and agent and tls"))["containers"][0]["env"]
    (cache,) = [one["value"] for one in variables if one["name"] == "VLCLIP_AGENT_CACHE"]
    package = cache.partition("://")[0]
    extra = re.search(r"^agent = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert extra
    assert f'"{package}>=' in extra[1]
    for file in ("Dockerfile", "Dockerfile.cpu"):
        assert "'.[serve,agent]'" in (ROOT / "deploy" / file).read_text()


@pytest.mark.parametrize("name", RENDERED)
def test_no_secret_is_written_down(name: str) -> None:
    assert not of_kind(name, "Secret")
    for pod in pods(name):
        for variable in pod["containers"][0].get("env", []):
            if variable["name"].endswith("_KEY"):
                assert variable["valueFrom"]["secretKeyRef"]["name"] == "vlclip"
