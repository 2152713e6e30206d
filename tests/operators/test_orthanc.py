"""A real PACS takes source and derived series side by side and gives both back unchanged (W11)."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest

from stillscan.operators.volume import Volume
from tests import orthanc_session
from tests.conftest import need
from tests.derived import (
    STUDENT,
    Derivation,
    derive_volume,
    real_volumes,
    smoothed,
    volumes_in,
)
from tests.enhanced_factory import ENHANCED
from tests.operators.test_anomaly import STACKS, with_lesion
from tests.operators.test_anomaly import objects_of as anomaly_objects_of
from tests.operators.test_objects import objects_of
from tests.series_factory import SOP_CLASSES, make_series

Tool = Callable[[str], str]

pytestmark = [pytest.mark.tools, pytest.mark.slow]


def made_volumes(folder: Path) -> Iterator[Volume]:
    for modality in SOP_CLASSES:
        make_series(folder / modality, modality=modality, slices=2)
        yield from volumes_in(folder / modality)
    for kind, make in ENHANCED.items():
        make(folder / kind)
        yield from volumes_in(folder / kind)


def derive_all(volumes: Iterator[Volume], folder: Path) -> list[Derivation]:
    """One derivation of every series; what was derived before is not derived again."""
    known: set[str] = set()
    made = []
    for volume in volumes:
        if volume.series_instance_uid not in known:
            known.add(volume.series_instance_uid)
            made.append(derive_volume(volume, folder / "derived", smoothed, STUDENT))
    return made


def archived(
    derivations: list[Derivation], work: Path, tool: Tool, objects: Sequence[Path] = ()
) -> Path:
    """The folder of a server that has stored sources and derived series and given them back."""
    sent = work / "sent"
    sent.mkdir()
    for number, (source, derived) in enumerate(pair for d in derivations for pair in d.files):
        shutil.copy(source, sent / f"{number:04d}_source.dcm")
        shutil.copy(derived, sent / f"{number:04d}_derived.dcm")
    for file in objects:
        shutil.copy(file, sent)
    alone = [tool("unshare"), "-n"] if os.geteuid() == 0 else [tool("unshare"), "-r", "-n"]
    allowed = subprocess.run([*alone, tool("ip"), "link", "show", "lo"], capture_output=True)
    need(allowed.returncode == 0, "this machine does not allow a network namespace")
    session = [sys.executable, orthanc_session.__file__, str(work)]
    run = subprocess.run(
        [*alone, *session, tool("Orthanc"), tool("dcmsend"), str(sent)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return work


def assert_comes_back(derivations: list[Derivation], archive: Path) -> None:
    """Derived images come back as they were sent, and their sources are still there."""
    for derivation in derivations:
        for source, derived in derivation.files:
            sent = pydicom.dcmread(derived)
            for door in ("rest", "wado"):
                back = pydicom.dcmread(archive / door / derived.name)
                assert np.array_equal(back.pixel_array, sent.pixel_array), door
                assert back == sent, door
            name = pydicom.dcmread(source, specific_tags=["SOPInstanceUID"]).SOPInstanceUID
            assert (archive / "rest" / f"{name}.dcm").exists()


@dataclass(frozen=True)
class Made:
    """Series that were made, the objects beside those of MR and CT, and where they came back."""

    derivations: list[Derivation]
    objects: list[Path]
    archive: Path


@pytest.fixture(scope="module")
def made(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    derivations = derive_all(made_volumes(folder / "made"), folder)
    objects = [
        file
        for each in derivations
        if each.volume.modality in ("MR", "CT")
        for files in objects_of(each.volume, folder / "objects").files.values()
        for file in files
    ]
    lesion = with_lesion(folder / "lesion", *STACKS["oblique"], seed=7)
    anomaly_objects_of(lesion, folder / "anomaly")
    objects += sorted((folder / "anomaly").rglob("*.dcm"))
    return Made(derivations, objects, archived(derivations, folder, tool, objects))


def test_made_series_come_back_unchanged(made: Made) -> None:
    assert_comes_back(made.derivations, made.archive)


@pytest.mark.data
def test_real_series_come_back_unchanged(stillscan_data: Path, tool: Tool, tmp_path: Path) -> None:
    volumes = (volume for _, volume in real_volumes(stillscan_data, tmp_path))
    derivations = derive_all(volumes, tmp_path)
    assert len(derivations) >= 16
    assert_comes_back(derivations, archived(derivations, tmp_path, tool))


def test_objects_beside_a_series_come_back_unchanged(made: Made) -> None:
    assert made.objects
    for file in made.objects:
        assert pydicom.dcmread(made.archive / "rest" / file.name) == pydicom.dcmread(file)
