"""Anomaly objects: where the lesion was, valid, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import torch
from pydicom import Dataset

from stillscan.app.pipeline.anomaly import _mapped
from stillscan.models.anomaly.model import AnomalyEstimate
from stillscan.operators.anomaly.assessing import (
    AnomalyMethod,
    Assessment,
    NoBundleForBodyPartError,
    UnlikeTrainingImagesError,
    require_suitable,
)
from stillscan.operators.anomaly.input_contract import InputContract
from stillscan.operators.anomaly.objects import AnomalyProvenance
from stillscan.operators.errors import NotOneVolumeError
from stillscan.operators.volume import Volume
from stillscan.operators.writing.companions.companions import ObjectFiles
from tests.derived import volumes_in
from tests.operators.test_validators import errors_of
from tests.series_factory import make_series

Tool = Callable[[str], str]

PROVENANCE = AnomalyProvenance(
    "0.2.0", "heads", "0" * 64, "one step x KL", 1.0, "torch", "float32", "cpu"
)
AXIAL = InputContract("CT", "axial", 64, 1.0, (-1024.0, 1000.0), ("HEAD",))
FACTS = {"nominal_share": 0.001, "achieved_share": 0.0012, "subjects": 40.0, "slices": 800.0}
LESION = (slice(2, 4), slice(12, 19), slice(40, 45))  # slices, rows, columns


class BrightIsUnusual:
    """A model that finds what is bright."""

    def __init__(self, likeness: float = 0.0) -> None:
        self.likeness = likeness

    def assess(self, images: torch.Tensor, seed: int) -> AnomalyEstimate:
        likeness = torch.full((len(images),), self.likeness)
        return AnomalyEstimate(4.0 * (images > 0.75), images.clamp(max=0.5), likeness)


def method(likeness: float = 0.0, contract: InputContract = AXIAL) -> AnomalyMethod:
    return AnomalyMethod(BrightIsUnusual(likeness), contract, PROVENANCE, FACTS)


def turned(*degrees: float) -> np.ndarray:
    """A rotation about x, then y, then z."""
    made = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        one = np.eye(3)
        one[i, i] = one[j, j] = np.cos(angle)
        one[i, j], one[j, i] = -np.sin(angle), np.sin(angle)
        made = one @ made
    return made


def with_lesion(
    folder: Path, rotation: np.ndarray, step: np.ndarray, **attributes: object
) -> Volume:
    """A CT with a bright box in it, in this orientation."""
    across, down = rotation[:, 0], rotation[:, 1]
    files = make_series(
        folder,
        modality="CT",
        slices=6,
        rows=48,
        columns=64,
        PixelSpacing=[0.9, 0.8],
        ImageOrientationPatient=[*np.round(across, 7), *np.round(down, 7)],
        ImagePositionPatient=lambda index: list(np.round([-20, -30, 40] + index * step, 4)),
        BodyPartExamined="HEAD",
        **attributes,
    )
    for index, file in enumerate(files):
        dataset = pydicom.dcmread(file)
        stored = np.full((48, 64), 900, np.uint16)
        if index in range(6)[LESION[0]]:
            stored[LESION[1:]] = 1900
        dataset.PixelData = stored.tobytes()
        dataset.save_as(file)
    (volume,) = volumes_in(folder)
    return volume


def objects_of(volume: Volume, staging: Path) -> dict[str, Dataset]:
    staging.mkdir()
    outcome = _mapped(Assessment(volume), method(), ObjectFiles(volume, staging, 100), staging)
    assert outcome.message.startswith("1 candidate region")
    found = {}
    for each in outcome.objects:
        (file,) = (staging / each.series_instance_uid).iterdir()
        found[each.kind] = pydicom.dcmread(file)
    return found


STACKS = {
    "axial": (turned(0, 0, 0), 3.0 * np.array([0, 0, 1.0])),
    "upside down": (turned(0, 0, 180), 3.0 * np.array([0, 0, 1.0])),
    "rotated in its plane": (turned(0, 0, 35), 3.0 * np.array([0, 0, 1.0])),
    "oblique": (turned(18, -12, 9), 3.0 * turned(18, -12, 9)[:, 2]),
    "gantry tilted": (turned(20, 0, 0), np.array([0, 0, 3.0])),
}


@pytest.mark.tools
@pytest.mark.parametrize("name", STACKS)
def test_map_lies_where_the_lesion_was(name: str, tool: Tool, tmp_path: Path) -> None:
    rotation, step = STACKS[name]
    volume = with_lesion(tmp_path / "source", rotation, step)
    made = objects_of(volume, tmp_path / "made")
    box = np.array([(each.start + each.stop - 1) / 2 for each in LESION])
    expected = volume.affine_lps[:3, :3] @ box[::-1] + volume.affine_lps[:3, 3]
    voxel_mm = np.abs(volume.affine_lps[:3, :3]).sum(1).max()

    for kind, level in (("anomaly", 3.0), ("anomaly-regions", 1)):
        dataset = made[kind]
        shared = dataset.SharedFunctionalGroupsSequence[0]
        cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
        spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
        places = []
        frames = dataset.pixel_array.reshape(-1, 48, 64)
        for frame, group in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
            origin = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
            row, column = np.nonzero(frame >= level)
            places.append(
                origin
                + np.outer(column * spacing[1], cosines[:3])
                + np.outer(row * spacing[0], cosines[3:])
            )
        centre = np.concatenate(places).mean(0)
        assert np.linalg.norm(centre - expected) < 0.8, kind
        assert np.abs(np.concatenate(places) - expected).max() < voxel_mm + 8

    segmentation = highdicom.seg.Segmentation.from_dataset(made["anomaly-regions"])
    (segment,) = segmentation.SegmentSequence
    assert segment.segmented_property_type.value == "ANOMALY_CANDIDATE"
    assert segment.segmented_property_category.value == "49755003"
    report = highdicom.sr.srread(
        str(next((tmp_path / "made").rglob(f"{made['anomaly-report'].SOPInstanceUID}.dcm")))
    )
    (group,) = report.content.get_volumetric_roi_measurement_groups()
    volume_mm3 = next(m.value for m in group.get_measurements() if m.name.value == "118565006")
    true_mm3 = 2 * 7 * 5 * abs(np.linalg.det(volume.affine_lps[:3, :3]))
    assert volume_mm3 == pytest.approx(true_mm3, rel=0.35)
    assert group.referenced_segment.referenced_sop_instance_uid == segmentation.SOPInstanceUID
    known = set(errors_of(tool("dciodvfy"), [volume.slices[0].path]))
    for dataset in made.values():
        assert dataset.PatientID == pydicom.dcmread(volume.slices[0].path).PatientID
        (file,) = (tmp_path / "made").rglob(f"{dataset.SOPInstanceUID}.dcm")
        assert not set(errors_of(tool("dciodvfy"), [file])) - known


def test_what_a_bundle_is_not_for_is_refused(tmp_path: Path) -> None:
    sagittal = turned(0, -90, 0)
    volume = with_lesion(tmp_path / "sagittal", sagittal, 3 * sagittal[:, 2])
    with pytest.raises(NoBundleForBodyPartError, match="sagittal"):
        require_suitable(volume, method())
    straight = STACKS["axial"]
    knee = InputContract("CT", "axial", 64, 1.0, (-1024.0, 1000.0), ("KNEE",))
    volume = with_lesion(tmp_path / "axial", *straight)
    with pytest.raises(NoBundleForBodyPartError, match="HEAD"):
        require_suitable(volume, method(contract=knee))
    uneven = with_lesion(tmp_path / "uneven", straight[0], straight[1], seed=3)
    files = sorted((tmp_path / "uneven").iterdir())
    last = pydicom.dcmread(files[-1])
    last.ImagePositionPatient[2] = 90
    last.save_as(files[-1])
    (uneven,) = volumes_in(tmp_path / "uneven")
    with pytest.raises(NotOneVolumeError):
        require_suitable(uneven, method())


def test_score_of_other_images_is_not_shown(tmp_path: Path) -> None:
    volume = with_lesion(tmp_path / "source", *STACKS["axial"])
    staging = tmp_path / "made"
    staging.mkdir()
    files = ObjectFiles(volume, staging, 100)
    with pytest.raises(UnlikeTrainingImagesError):
        _mapped(Assessment(volume), method(likeness=4.0), files, staging)
    files.discard()
    assert not list(staging.rglob("*.dcm"))


def test_page_names_what_is_invented(tmp_path: Path) -> None:
    volume = with_lesion(tmp_path / "source", *STACKS["axial"])
    objects_of(volume, tmp_path / "made")
    (page,) = (tmp_path / "made/report").glob("*.html")
    text = page.read_text(encoding="utf-8")
    assert text.count("invented by it: not the patient") == 6
    assert "Region 1" in text
    assert "rules nothing out" in text
