"""A runner that starts the image as Mercure's processor starts a module.

After `process_series.docker_runtime` of mercure-imaging/mercure: the folders /tmp/data and
/tmp/output, both sets of variables, its own user, capabilities dropped; success is exit code 0, and
then `result.json` is read and the output sent with `dcmsend +r +sp *.dcm`.
"""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import dcmread

from tests.deploy.image.conftest import ANY_USER, Image
from tests.series_factory import make_series

IN, OUT = "/tmp/data", "/tmp/output"


@dataclass(frozen=True)
class Processed:
    """What Mercure knows after a module ran."""

    success: bool
    result: dict | None
    sent: list[Path]
    folder: Path
    log: str


def process(image: Image, folder: Path, settings: dict) -> Processed:
    """Run one task; `folder/in` holds its DICOM files."""
    module = {"docker_tag": image.name, "settings": {}, "requires_root": False}
    task = {
        "id": "0",
        "info": {"action": "process", "uid": "1.2.3", "uid_type": "series"},
        "dispatch": {},
        "process": {
            "module_name": "stillscan",
            "module_config": module,
            "settings": settings,
            "retain_input_images": False,
        },
    }
    source, output = folder / "in", folder / "out"
    (source / "task.json").write_text(json.dumps(task))
    for image_file in list(source.glob("*.dcm")):
        image_file.with_suffix(".tags").write_text("{}")
    output.mkdir()
    for each in (source, output):
        each.chmod(0o777)
    variables = {"MERCURE_IN_DIR": IN, "MERCURE_OUT_DIR": OUT}
    variables |= {"MONAI_INPUTPATH": IN, "MONAI_OUTPUTPATH": OUT}
    variables |= {"HOLOSCAN_INPUT_PATH": IN, "HOLOSCAN_OUTPUT_PATH": OUT}
    words = [*image.podman, "run", "--rm", "--cap-drop=all", "--network=none"]
    words += [f"--user={ANY_USER}:{ANY_USER}", f"--group-add={os.getgid()}"]
    words += ["--ulimit=nofile=20000:20000", "--ulimit=nproc=4096:4096"]
    words += [f"--env={name}={value}" for name, value in variables.items()]
    words += [f"--volume={source}:{IN}", f"--volume={output}:{OUT}", image.name]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    result = output / "result.json"
    return Processed(
        done.returncode == 0,
        json.loads(result.read_text()) if result.exists() else None,
        sorted(output.rglob("*.dcm")),
        output,
        done.stderr,
    )


def test_a_series_comes_back_with_figures(image: Image, tmp_path: Path) -> None:
    make_series(tmp_path / "in", slices=2)
    processed = process(image, tmp_path, {})
    assert processed.success, processed.log
    assert len(processed.sent) == 2
    assert processed.result is not None
    (series,) = processed.result["series"]
    assert series["status"] == "derived"
    assert series["method"]["strength"] == 1.0
    assert dcmread(processed.sent[0]).SeriesInstanceUID == series["derived"]["series_instance_uid"]
    assert {each.name for each in processed.folder.iterdir()} == {
        "result.json",
        series["derived"]["series_instance_uid"],
    }


def test_settings_of_the_rule_reach_the_application(image: Image, tmp_path: Path) -> None:
    make_series(tmp_path / "in", slices=1)
    settings = {"denoise": {"strength": "low"}, "output": {"series": {"suffix": " (quiet)"}}}
    processed = process(image, tmp_path, settings)
    assert processed.success, processed.log
    assert processed.result is not None
    assert processed.result["series"][0]["method"]["strength"] == 0.5
    assert dcmread(processed.sent[0]).SeriesDescription.endswith(" (quiet)")


@pytest.mark.parametrize("settings", [{"denoise": {"strenght": "low"}}, {"resources": {"cpu": 1}}])
def test_a_wrong_setting_fails_the_task(image: Image, tmp_path: Path, settings: dict) -> None:
    make_series(tmp_path / "in", slices=1)
    processed = process(image, tmp_path, settings)
    assert not processed.success
    assert list(processed.folder.iterdir()) == []


def test_refused_series_beside_derived_ones_are_a_notification(
    image: Image, tmp_path: Path
) -> None:
    make_series(tmp_path / "in", slices=1)
    make_series(tmp_path / "in", slices=1, modality="PT", seed=1)  # no bundle knows it
    processed = process(image, tmp_path, {})
    assert processed.success, processed.log
    assert processed.result is not None
    text = processed.result["__mercure_notification"]["text"]
    assert text == "Stillscan refused 1 of 2 series: no-bundle-for-modality"
    assert len(processed.sent) == 1


def test_a_refused_task_leaves_nothing_to_send(image: Image, tmp_path: Path) -> None:
    make_series(tmp_path / "in", slices=1, modality="PT")
    processed = process(image, tmp_path, {})
    assert not processed.success
    assert list(processed.folder.iterdir()) == []


def test_it_is_no_module_that_demands_root(image: Image) -> None:
    # Mercure runs a module that has this file as root
    words = image.command("/etc/monai/app.json", options=("--entrypoint=cat",))
    assert subprocess.run(words, capture_output=True, check=False).returncode != 0
