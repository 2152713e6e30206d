"""Every command of docs/tutorial.md runs, one after the other, and says what the page says."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from bench.derived import derived_folders, read_result

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(sh|text)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SMALL = 150_000  # bytes


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """What the page calls `tutorial/`, after its last command."""
    place = tmp_path_factory.mktemp("tutorial")
    said = ""
    for kind, block in BLOCKS:
        if kind == "text":
            missing = [line for line in block.splitlines() if plain(line) not in plain(said)]
            assert not missing, said
            continue
        for command in block.splitlines():
            if command != "make env":  # this environment is there
                said = run(command, place)
    return place


def run(command: str, place: Path) -> str:
    """What a command of the page prints, `tutorial/` being another folder."""
    first, *rest = shlex.split(command.replace("tutorial/", f"{place}/"))
    program = Path(sys.executable).with_name(first)
    done = subprocess.run(
        [program, *rest],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"COLUMNS": "400", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )
    # one image is refused, as the page says, where its noise has to be measured
    wanted = 5 if " denoise " in command and "identity" not in command else 0
    assert done.returncode == wanted, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def plain(text: str) -> str:
    """The same without the figures of noise, whose last digits follow from weights and machine."""
    return re.sub(r"noise [\d.]+ -> [\d.]+( HU)? \(-\d+ %\)", "noise", text)


def derived_images(out: Path) -> dict[str, pydicom.Dataset]:
    files = [file for folder in derived_folders(out) for file in folder.glob("*.dcm")]
    images = [pydicom.dcmread(file) for file in files]
    return {each.SourceImageSequence[0].ReferencedSOPInstanceUID: each for each in images}


def source_images(place: Path) -> dict[str, pydicom.Dataset]:
    images = [pydicom.dcmread(file) for file in (place / "series").rglob("*.dcm")]
    return {each.SOPInstanceUID: each for each in images if "PixelData" in each}


@pytest.mark.slow
def test_every_image_is_derived_but_the_one_whose_noise_cannot_be_measured(place):
    left = source_images(place).keys() - derived_images(place / "denoised").keys()
    assert [source_images(place)[each].Rows for each in left] == [64]


@pytest.mark.slow
def test_derived_series_stand_in_the_study_of_their_sources(place):
    sources = source_images(place)
    for source, image in derived_images(place / "denoised").items():
        assert image.StudyInstanceUID == sources[source].StudyInstanceUID
        assert image.SeriesDescription.endswith("(denoised, read with original)")


@pytest.mark.slow
def test_each_series_has_a_page_of_the_report(place):
    for folder in derived_folders(place / "denoised"):
        assert (place / "denoised/report" / f"{folder.name}.html").is_file()


@pytest.mark.slow
def test_the_head_loses_most_of_its_noise(place):
    (head,) = (each for each in read_result(place / "denoised")["series"] if each["slices"] > 1)
    assert head["noise"]["after"] < 0.5 * head["noise"]["before"]


@pytest.mark.slow
def test_low_strength_takes_less_and_makes_other_series(place):
    denoised, gentle = (
        {each["source_series_instance_uid"]: each for each in read_result(place / name)["series"]}
        for name in ("denoised", "gentle")
    )
    assert denoised.keys() == gentle.keys()
    for source, each in denoised.items():
        other = gentle[source]
        if each["status"] != "derived":
            continue
        assert each["noise"]["after"] <= other["noise"]["after"]
        assert each["derived"]["series_instance_uid"] != other["derived"]["series_instance_uid"]


@pytest.mark.slow
def test_the_control_keeps_every_pixel(place):
    sources = source_images(place)
    same = list((place / "same").rglob("*.dcm"))
    assert len(same) == len(sources)
    for file in same:
        image = pydicom.dcmread(file)
        source = sources[image.SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert np.array_equal(image.pixel_array, source.pixel_array)


@pytest.mark.parametrize("picture", sorted((ROOT / "docs/pictures").glob("*")), ids=str)
def test_pictures_of_the_page_are_small_and_shown(picture):
    assert picture.stat().st_size < SMALL
    assert f"(pictures/{picture.name})" in PAGE
