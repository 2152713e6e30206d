"""What lies in the image: nothing unsafe, nothing secret, nobody's images, every licence."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.version import Version

from tests.deploy.image.conftest import Image

FLOORS = {"pydicom": "3.0.2", "monai": "1.6", "pillow": "11", "torch": "2.9"}
UNPACKED_LIMIT = 2.2e9
# Debian's own certificates of public authorities are no secrets
# keys, tokens of clouds and of code hosts, indexes with a password
SECRETS = (
    "^-----BEGIN ([A-Z]+ )?PRIVATE KEY-----$",
    r"\bAKIA[0-9A-Z]{16}\b",
    r"\bgh[pousr]_[A-Za-z0-9]{36}\b",
    "//[^/[:space:]:@]+:[^/[:space:]:@]{8,}@[a-z0-9.-]+/simple",
)


@pytest.fixture(scope="module")
def tree(image: Image) -> Iterator[Path]:
    """The image's file system, mounted."""
    mount = [*image.podman, "image", "mount", image.name]
    done = subprocess.run(mount, capture_output=True, text=True, check=True)
    yield Path(done.stdout.strip())
    subprocess.run([*image.podman, "image", "unmount", image.name], capture_output=True, check=True)


@pytest.fixture(scope="module")
def bill(tree: Path) -> dict:
    return json.loads((tree / "opt/holoscan/docs/sbom.cdx.json").read_text())


def files(tree: Path) -> Iterator[Path]:
    return (path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())


def test_no_package_is_below_its_security_floor(bill: dict) -> None:
    versions = {each["name"]: each["version"] for each in bill["components"]}
    for name in FLOORS.keys() & versions.keys():
        assert Version(versions[name]) >= Version(FLOORS[name]), name
    assert "pydicom" in versions


def test_every_component_has_a_licence(bill: dict, tree: Path) -> None:
    assert len(bill["components"]) > 80
    for each in bill["components"]:
        licence = each["licenses"][0]["license"]["name"]
        assert licence
        if licence.startswith("/"):
            assert (tree / licence[1:]).exists() or (tree / licence[1:]).is_symlink(), licence
    table = (tree / "opt/holoscan/docs/LICENCES.md").read_text()
    assert all(f"| {each['name']} | {each['version']} |" in table for each in bill["components"])


def test_no_component_is_gpl_among_the_python_packages(bill: dict) -> None:
    python = [each for each in bill["components"] if each["purl"].startswith("pkg:pypi")]
    licences = {each["name"]: each["licenses"][0]["license"]["name"] for each in python}
    assert not {name for name, licence in licences.items() if re.search(r"\bA?GPL", licence)}


def test_wheels_and_weights_have_their_digests(bill: dict) -> None:
    for each in bill["components"]:
        if not each["purl"].startswith("pkg:deb"):
            assert re.fullmatch(r"[0-9a-f]{64}", each["hashes"][0]["content"]), each["name"]


def with_secrets(folder: Path) -> str:
    """The files below a folder that hold a secret, one a line."""
    patterns = [f"--regexp={each}" for each in SECRETS]
    grep = ["grep", "-r", "-I", "-l", "-E", "--devices=skip", *patterns, str(folder)]
    done = subprocess.run(grep, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_there_are_no_secrets(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("-----BEGIN RSA PRIVATE KEY-----\n")
    assert with_secrets(tmp_path) == f"{tmp_path / 'key'}\n"
    assert with_secrets(tree) == ""


def test_there_is_no_image_of_a_patient_and_no_test(tree: Path) -> None:
    for path in files(tree):
        inside = path.relative_to(tree)
        if inside.match("pydicom/data/palettes/*.dcm"):
            continue  # colour tables of the standard
        assert path.suffix.lower() not in (".dcm", ".ima", ".nii", ".npz"), inside
        with path.open("rb") as stream:
            assert stream.read(132)[128:] != b"DICM", inside
    assert not (tree / "opt/stillscan/tests").exists()
    assert not (tree / "opt/holoscan/tests").exists()


def test_nothing_installs_or_compiles(tree: Path) -> None:
    for name in ("pip", "gcc", "cc", "curl", "wget", "apt-get"):
        assert not list(tree.glob(f"usr/*bin/{name}")), name


def test_it_is_small(tree: Path) -> None:
    assert sum(path.lstat().st_size for path in tree.rglob("*")) <= UNPACKED_LIMIT


def test_labels_name_the_image_as_the_specification_wants(image: Image) -> None:
    inspect = [*image.podman, "image", "inspect", image.name]
    (shown,) = json.loads(subprocess.run(inspect, capture_output=True, check=True).stdout)
    labels = shown["Labels"]
    application = json.loads(image.run("show", "app").stdout)
    assert labels["org.opencontainers.image.version"] == application["version"]
    assert labels["org.opencontainers.image.title"] == "Stillscan"
    assert labels["org.monai.deploy.app-sdk"] == application["sdkVersion"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
