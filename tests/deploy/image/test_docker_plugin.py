"""A task manager that runs the image as MONAI Deploy's docker plug-in runs a task.

After `DockerPlugin` and `ContainerStatusMonitor` of Project-MONAI/monai-deploy-workflow-manager:
inputs are downloaded from storage and bound read-only to where the argument of the artefact's name
says, outputs bound likewise, `env_*` become variables, entry point and command are split at commas;
any container that has exited is a success, whatever its code. What the output holds is uploaded,
and the Workflow Manager fails the task where a mandatory artefact is missing.
"""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.image.conftest import Image
from tests.series_factory import make_series

ROOT = Path(__file__).resolve().parents[3]
WORKFLOW = json.loads((ROOT / "deploy/monai-deploy/workflow-docker.json").read_text())
PAYLOAD, EXECUTION = "payload", "execution"


@dataclass(frozen=True)
class TaskManager:
    """Storage, and the plug-in's way of running one task."""

    image: Image
    storage: Path
    temporary: Path

    def receive(self, source: Path) -> None:
        """Put a payload into storage as the Informatics Gateway does: instances and their JSON."""
        target = self.storage / PAYLOAD / "dcm"
        shutil.copytree(source, target)
        for file in list(target.iterdir()):
            (target / f"{file.name}.json").write_text("{}")

    def execute(self, task: dict[str, Any]) -> bool:
        """Run a docker task; returns whether the Workflow Manager goes on to the next."""
        arguments, artefacts = task["args"], task["artifacts"]
        folder = self.temporary / EXECUTION
        words = ["run", "--rm", "--ulimit=nofile=20000:20000", "--ulimit=nproc=4096:4096"]
        for artefact in artefacts["input"]:
            assert artefact["value"] == "{{ context.input.dicom }}"
            place = folder / "inputs" / artefact["name"]
            shutil.copytree(self.storage / PAYLOAD / "dcm", place)
            words.append(f"--volume={place}:{arguments[artefact['name']]}:ro")
        for artefact in artefacts["output"]:
            place = folder / "outputs" / artefact["name"]
            place.mkdir(parents=True)
            words.append(f"--volume={place}:{arguments[artefact['name']]}")
        subprocess.run(["chown", "-R", arguments["user"], folder], check=True)
        for key, value in arguments.items():
            if key.startswith("env_"):
                words.append(f"--env={key.replace('env_', '')}={value}")
        entry, *rest = arguments["entrypoint"].split(",")
        words += [f"--user={arguments['user']}", f"--entrypoint={entry}", self.image.name]
        words += [*rest, *arguments["command"].split(",")]
        # the exit code is looked at by nobody
        subprocess.run([*self.image.podman, *words], capture_output=True, check=False)
        missing = []
        for artefact in artefacts["output"]:
            place = folder / "outputs" / artefact["name"]
            files = [path for path in place.rglob("*") if path.is_file()]
            if not files:
                missing.append(artefact)
            for file in files:
                target = self.storage / EXECUTION / artefact["name"] / file.relative_to(place)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        return not any(artefact["mandatory"] for artefact in missing)

    def exported(self, task: dict[str, Any]) -> list[Path]:
        """What the export task sends: the DICOM files of its artefact."""
        (artefact,) = task["artifacts"]["input"]
        name = artefact["value"].removesuffix(" }}").rpartition(".")[2]
        return sorted((self.storage / EXECUTION / name).rglob("*.dcm"))


@pytest.fixture
def manager(image: Image, tmp_path: Path) -> TaskManager:
    return TaskManager(image, tmp_path / "storage", tmp_path / "temporary")


def task(name: str) -> dict[str, Any]:
    return next(each for each in WORKFLOW["tasks"] if each["id"] == name)


def test_a_series_is_derived_and_exported(manager: TaskManager, source: Path) -> None:
    manager.receive(source)
    assert manager.execute(task("stillscan"))
    assert len(manager.exported(task("export"))) == len(list(source.iterdir()))


def test_a_refused_series_fails_the_task_and_exports_nothing(
    manager: TaskManager, tmp_path: Path
) -> None:
    make_series(tmp_path / "in", modality="PT", slices=1)
    manager.receive(tmp_path / "in")
    assert not manager.execute(task("stillscan"))
    assert manager.exported(task("export")) == []


def test_our_own_output_comes_round_once(
    manager: TaskManager, source: Path, tmp_path: Path
) -> None:
    manager.receive(source)
    assert manager.execute(task("stillscan"))
    (tmp_path / "second").mkdir()
    for file in manager.exported(task("export")):
        shutil.copyfile(file, tmp_path / "second" / file.name)
    again = TaskManager(manager.image, tmp_path / "storage-2", tmp_path / "temporary-2")
    again.receive(tmp_path / "second")
    assert not again.execute(task("stillscan"))
