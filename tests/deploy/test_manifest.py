"""Our manifests and build context beside those of `monai-deploy package` on the same folder."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stillscan.deploy.image.context import copy_application, write_manifests
from stillscan.deploy.image.packages import LEFT_OUT, read_lock
from tests.series_factory import make_series

ROOT = Path(__file__).resolve().parents[2]
# what the packager would download: names of images that nothing here pulls
ARTIFACTS = {
    "4.2.0": {
        "holoscan": {
            "wheel-version": "4.2.0",
            "debian-version": "4.2.0",
            "base-images": {"dgpu": "base:dgpu", "igpu": "base:igpu", "cpu": "base:cpu"},
            "build-images": {"dgpu": {}, "igpu": {}, "cpu": {}},
        },
        "health-probes": {},
    }
}
RUN_WITHOUT_CHECKOUT = f"""
import runpy, sys
sys.path[:] = [each for each in sys.path if each != {str(ROOT)!r}]
sys.path[0] = sys.argv.pop(1)
sys.argv[0] = sys.path[0]
runpy.run_path(sys.path[0], run_name="__main__")
"""
LEFT_BEHIND = shutil.ignore_patterns("__pycache__")

# The packager with its two Docker calls replaced: what it would build is kept.
PACKAGER = """
import shutil, sys
from holoscan_cli.packager import container_builder

kept = sys.argv.pop(1)
container_builder.create_and_get_builder = lambda name: name
container_builder.build_docker_image = lambda **build: shutil.copytree(build["context_path"], kept)
sys.argv[0] = "monai-deploy"  # from which it knows the SDK

from holoscan_cli.__main__ import main
main()
"""


def packaged(folder: Path, application: Path, models: Path) -> Path:
    """The folder that `monai-deploy package` would give to Docker, on an application."""
    (folder / "artifacts.json").write_text(json.dumps(ARTIFACTS))
    shutil.copytree(ROOT / "stillscan", folder / "lib/stillscan", ignore=LEFT_BEHIND)
    shutil.copyfile(ROOT / "pyproject.toml", folder / "lib/pyproject.toml")
    command = ["package", str(application), "--platform", "x86_64", "--tag", "stillscan:test"]
    command += ["--config", str(ROOT / "app/app.yaml"), "--docs", str(ROOT / "docs")]
    command += ["--models", str(models), "--add", str(folder / "lib")]
    command += ["--source", str(folder / "artifacts.json")]
    # a process of its own: the packager configures the logging of the process that it runs in
    words = [sys.executable, "-c", PACKAGER, str(folder / "context"), *command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "context"


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the packager makes of app/ as it stands."""
    return packaged(tmp_path_factory.mktemp("official"), ROOT / "app", ROOT / "models/bundles")


@pytest.mark.slow
def test_the_example_application_is_packaged(tmp_path: Path) -> None:
    example, model = ROOT / "examples/denoise_then_segment", tmp_path / "model"
    model.mkdir()
    (model / "model.ts").write_text("weights")
    context = packaged(tmp_path, example, model)
    assert tree(context / "app") == tree(example)
    assert (context / "models/model/model.ts").read_text() == "weights"
    assert (context / "lib/stillscan/app/library/sdk_operators.py").is_file()
    command = json.loads((context / "map/app.json").read_text())["command"]
    assert json.loads(command) == ["python3", "/opt/holoscan/app"]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ours") / "root"
    copy_application(root)
    write_manifests(root, "dgpu")
    return root


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("name", ["app.json", "pkg.json"])
def test_manifests_are_the_packagers(official: Path, ours: Path, name: str) -> None:
    theirs = json.loads((official / "map" / name).read_text())
    assert json.loads((ours / "etc/holoscan" / name).read_text()) == theirs


def test_only_the_platform_of_the_cpu_image_is_another(official: Path, tmp_path: Path) -> None:
    write_manifests(tmp_path, "cpu")
    theirs = json.loads((official / "map/pkg.json").read_text())
    assert json.loads((tmp_path / "etc/holoscan/pkg.json").read_text()) == theirs | {
        "platformConfig": "cpu"
    }


def test_application_models_and_settings_are_the_packagers(official: Path, ours: Path) -> None:
    assert tree(ours / "opt/holoscan/app") == tree(official / "app")
    assert tree(ours / "opt/holoscan/models") == tree(official / "models")
    assert (ours / "var/holoscan/app.yaml").read_bytes() == (official / "app.config").read_bytes()


def test_documents_hold_the_packagers_and_the_licence(official: Path, ours: Path) -> None:
    documents = tree(ours / "opt/holoscan/docs")
    assert {f"docs/{name}" for name in tree(official / "docs")} <= set(documents)
    assert {"LICENSE", "README.md", "CHANGELOG.md"} <= set(documents)


def test_every_requirement_of_the_packager_is_locked_or_left_out(official: Path) -> None:
    text = (official / "pip/requirements.txt").read_text()
    wanted = {name.lower() for name in re.findall(r"^([\w-]+)", text, re.MULTILINE)}
    assert wanted - {each.name for each in read_lock("cpu")} == wanted & set(LEFT_OUT)


def test_the_environment_is_the_packagers(official: Path) -> None:
    dockerfile = (official / "Dockerfile").read_text()
    theirs = dict(re.findall(r"^ENV (HOLOSCAN_\w+)=(\S+)", dockerfile, re.MULTILINE))
    containerfile = (ROOT / "deploy/Containerfile").read_text()
    ours = dict(re.findall(r"(HOLOSCAN_\w+)=(\S+)", containerfile))
    assert theirs.pop("HOLOSCAN_VERSION") == "4.2.0"
    assert ours.pop("HOLOSCAN_VERSION") == "${HOLOSCAN_VERSION}"
    assert ours == theirs


def test_labels_of_the_packager_are_there(official: Path) -> None:
    theirs = re.findall(r"^LABEL ([\w.-]+)=", (official / "Dockerfile").read_text(), re.MULTILINE)
    ours = (ROOT / "deploy/Containerfile").read_text()
    # `tag` repeats the image's own name
    assert not [label for label in theirs if f"{label}=" not in ours and label != "tag"]


@pytest.mark.slow
def test_what_the_packager_copies_runs(official: Path, tmp_path: Path) -> None:
    make_series(tmp_path / "in", slices=1)
    dockerfile = (official / "Dockerfile").read_text()
    (paths,) = re.findall(r"^ENV PYTHONPATH=\$PYTHONPATH:(\S+)$", dockerfile, re.MULTILINE)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": paths.replace("/opt/holoscan/lib", str(official / "lib")),
        "HOLOSCAN_INPUT_PATH": str(tmp_path / "in"),
        "HOLOSCAN_OUTPUT_PATH": str(tmp_path / "out"),
        "HOLOSCAN_MODEL_PATH": str(official / "models"),
        "HOLOSCAN_CONFIG_PATH": str(official / "app.config"),
    }
    # without what is installed in editable form, which would bring the packages of this checkout
    words = [sys.executable, "-c", RUN_WITHOUT_CHECKOUT, str(official / "app")]
    done = subprocess.run(
        words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").glob("*/*.dcm"))) == 1
