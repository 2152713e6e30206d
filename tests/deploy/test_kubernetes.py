"""The rendered manifests: valid, confined, and of one piece with what they start."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from stillscan.app.settings import load_settings
from stillscan.deploy.gateway.settings import load_gateway_settings
from stillscan.deploy.image.manifest import ENVIRONMENT

KUBERNETES = Path(__file__).resolve().parents[2] / "deploy/kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
SERIES = [name for name in OVERLAYS if name.startswith("series")]
GATEWAY = [name for name in OVERLAYS if name.startswith("gateway")]
VERSION = "1.34"


@pytest.fixture(scope="module", params=OVERLAYS)
def rendered(request: pytest.FixtureRequest, kubectl: str) -> dict[str, dict[str, Any]]:
    """The documents of an overlay by kind."""
    command = [kubectl, "kustomize", str(KUBERNETES / "overlays" / request.param)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    documents = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    documents["overlay"] = request.param
    return documents


@pytest.fixture(scope="session")
def kubectl() -> str:
    found = shutil.which("kubectl")
    if found is None:
        pytest.skip("kubectl is not installed, and the one of Debian 12 is too old")
    return found


def workload(rendered: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return (rendered.get("Job") or rendered["Deployment"])["spec"]["template"]["spec"]


def test_every_document_follows_the_schema_of_kubernetes(rendered: dict) -> None:
    documents = [each for kind, each in rendered.items() if kind != "overlay"]
    assert len(documents) >= 2
    for document in documents:
        kubernetes_validate.validate(document, VERSION, strict=True)


def test_pods_are_confined(rendered: dict) -> None:
    pod = workload(rendered)
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_pods_have_limits_above_what_the_application_asks_for(rendered: dict) -> None:
    limits = workload(rendered)["containers"][0]["resources"]["limits"]
    wanted = load_settings().resources
    assert int(limits["cpu"]) >= wanted.cpu
    assert int(limits["memory"].removesuffix("Gi")) >= int(wanted.memory.removesuffix("Gi"))
    assert limits.get("nvidia.com/gpu", 0) == (1 if rendered["overlay"].endswith("gpu") else 0)


def test_images_are_of_this_version_and_fit_the_overlay(rendered: dict) -> None:
    part, _, hardware = rendered["overlay"].partition("-")
    image = workload(rendered)["containers"][0]["image"]
    tag = f"{load_settings().application.version}-{'cuda' if hardware == 'gpu' else 'cpu'}"
    assert image == f"localhost/stillscan:{tag}{'-gateway' if part == 'gateway' else ''}"


def test_every_mount_has_its_volume_and_every_volume_its_claim(rendered: dict) -> None:
    pod = workload(rendered)
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert {each["name"] for each in pod["containers"][0]["volumeMounts"]} == set(volumes)
    if "Deployment" in rendered:
        claim = volumes["data"]["persistentVolumeClaim"]["claimName"]
        assert claim == rendered["PersistentVolumeClaim"]["metadata"]["name"]
        settings = volumes["settings"]["configMap"]["name"]
        assert settings == rendered["ConfigMap"]["metadata"]["name"]


def test_a_network_policy_covers_the_pods(rendered: dict) -> None:
    policy = rendered["NetworkPolicy"]["spec"]
    controller = rendered.get("Job") or rendered["Deployment"]
    labels = controller["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    if "Job" in rendered:
        assert "ingress" not in policy
        assert "egress" not in policy


@pytest.mark.parametrize("rendered", SERIES, indirect=True)
def test_a_job_mounts_what_the_image_reads_and_writes(rendered: dict) -> None:
    mounts = {
        each["mountPath"]: each for each in workload(rendered)["containers"][0]["volumeMounts"]
    }
    root = Path(ENVIRONMENT["HOLOSCAN_WORKDIR"])
    assert mounts[str(root / ENVIRONMENT["HOLOSCAN_INPUT_PATH"])]["readOnly"] is True
    assert "readOnly" not in mounts[str(root / ENVIRONMENT["HOLOSCAN_OUTPUT_PATH"])]


@pytest.mark.parametrize("rendered", GATEWAY, indirect=True)
def test_the_gateway_listens_where_its_manifests_say(rendered: dict, tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(rendered["ConfigMap"]["data"]["gateway.yaml"])
    settings = load_gateway_settings(file)
    (container,) = workload(rendered)["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports == {"dicom": settings.receiver.port, "http": settings.web.port}
    policy = rendered["NetworkPolicy"]["spec"]["ingress"]
    assert {each["port"] for rule in policy for each in rule["ports"]} == set(ports.values())
    assert rendered["Service"]["spec"]["ports"][0]["port"] == settings.receiver.port
    mounts = {each["mountPath"] for each in container["volumeMounts"]}
    assert str(settings.data) in mounts
    assert container["command"][-1].startswith("/etc/stillscan/")
    grace = workload(rendered)["terminationGracePeriodSeconds"]
    drains = (settings.receiver.drain_s, settings.worker.drain_s, settings.sender.drain_s)
    assert grace > max(drains)
