"""Derived multi-frame instances: every frame in its place, and what each says of itself (W1-W7)."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from stillscan.operators.writing.derive_series import SeriesWriter, derive_series
from tests.derived import (
    IDENTITY,
    STUDENT,
    Denoised,
    blocks_of,
    derive,
    derive_volume,
    smoothed,
    unchanged,
    volumes_in,
)
from tests.enhanced_factory import ENHANCED, make_enhanced, make_legacy_converted

REAL = {  # instances and frames of each
    "mr_siemens_xa30_enhanced_t1": (1, 96),
    "mr_siemens_xa30_enhanced_bold4": (4, 132),
    "mr_siemens_sola_enhanced_acr_t1": (1, 11),
    "mr_siemens_sola_body_snr_pair": (2, 2),
    "mr_siemens_sola_headneck_snr_pair": (2, 2),
}
FUNCTIONAL_GROUPS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "FrameContentSequence",
)
DIMENSIONS = ("DimensionOrganizationSequence", "DimensionIndexSequence", "NumberOfFrames")
FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")


def functional_groups(dataset: Dataset) -> list[Dataset]:
    """The shared ones first."""
    shared = dataset.get("SharedFunctionalGroupsSequence", [])
    return [*shared, *dataset.PerFrameFunctionalGroupsSequence]


@pytest.mark.parametrize("kind", ENHANCED)
def test_identity_denoiser_keeps_every_pixel_of_every_frame(kind: str, tmp_path: Path) -> None:
    files = ENHANCED[kind](tmp_path / "source")
    derivation = derive(tmp_path / "source", unchanged, IDENTITY)
    assert derivation.series.instances == len(files)
    assert derivation.series.changed_share == 0
    for source, derived in derivation.pairs:
        assert np.array_equal(source.pixel_array, derived.pixel_array)


@pytest.mark.parametrize("kind", ENHANCED)
def test_each_frame_shows_what_the_denoiser_said_of_it(kind: str, tmp_path: Path) -> None:
    ENHANCED[kind](tmp_path / "source")
    (volume,) = volumes_in(tmp_path / "source")
    wanted = np.concatenate([smoothed(block) for block in blocks_of(volume)])
    derivation = derive(tmp_path / "source")
    shown = {
        source.SOPInstanceUID: derived.pixel_array.astype(float)
        for source, derived in derivation.pairs
    }
    for slice_, expected in zip(volume.slices, wanted, strict=True):
        frame = shown[slice_.sop_instance_uid][slice_.frame] * slice_.slope + slice_.intercept
        assert np.abs(frame - expected).max() <= 0.51 * slice_.slope


@pytest.mark.parametrize("kind", ENHANCED)
def test_each_frame_names_its_source_frame_and_what_was_done(kind: str, tmp_path: Path) -> None:
    ENHANCED[kind](tmp_path / "source")
    for source, derived in derive(tmp_path / "source").pairs:
        frames = derived.PerFrameFunctionalGroupsSequence
        assert len(frames) == source.NumberOfFrames == derived.NumberOfFrames
        for number, frame in enumerate(frames, start=1):
            derivation = frame.DerivationImageSequence[-1]
            assert derivation.DerivationDescription == STUDENT.derivation
            assert derivation.DerivationCodeSequence[0].CodeValue == "NOISE_REDUCTION"
            (origin,) = derivation.SourceImageSequence
            assert origin.ReferencedSOPClassUID == source.SOPClassUID
            assert origin.ReferencedSOPInstanceUID == source.SOPInstanceUID
            assert origin.ReferencedFrameNumber == number
            assert origin.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        evidence = derived.SourceImageEvidenceSequence[-1]
        assert evidence.StudyInstanceUID == source.StudyInstanceUID
        (series,) = evidence.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == source.SeriesInstanceUID
        (instance,) = series.ReferencedSOPSequence
        assert instance.ReferencedSOPInstanceUID == source.SOPInstanceUID


@pytest.mark.parametrize("kind", ENHANCED)
def test_instance_and_frames_say_that_they_are_derived(kind: str, tmp_path: Path) -> None:
    ENHANCED[kind](tmp_path / "source")
    for source, derived in derive(tmp_path / "source").pairs:
        assert derived.SOPInstanceUID != source.SOPInstanceUID
        assert derived.SOPClassUID == source.SOPClassUID
        assert derived.InstanceNumber == source.InstanceNumber
        assert list(derived.ImageType) == ["DERIVED", "PRIMARY", *source.ImageType[2:]]
        assert derived.ContributingEquipmentSequence[-1].Manufacturer == "Stillscan"
        types = [
            (before[keyword][0].FrameType, after[keyword][0].FrameType)
            for before, after in zip(
                functional_groups(source), functional_groups(derived), strict=True
            )
            for keyword in FRAME_TYPES
            if keyword in before
        ]
        assert types
        assert all(list(after) == ["DERIVED", "PRIMARY", *before[2:]] for before, after in types)


def require_untouched(source: Dataset, derived: Dataset) -> None:
    for keyword in DIMENSIONS:
        assert derived.get(keyword) == source.get(keyword)
    for before, after in zip(functional_groups(source), functional_groups(derived), strict=True):
        for keyword in FUNCTIONAL_GROUPS:
            assert (keyword in before) == (keyword in after)
            if keyword in before:
                assert spelled(after, keyword) == spelled(before, keyword)


def spelled(group: Dataset, keyword: str) -> list[dict[int, object]]:
    """The values of the items of a sequence as they are written, private ones left out."""
    return [
        {int(tag): element.value for tag, element in item.items() if not tag.is_private}
        for item in group[keyword].value
    ]


@pytest.mark.parametrize("kind", ENHANCED)
def test_geometry_rescale_and_dimensions_keep_their_spelling(kind: str, tmp_path: Path) -> None:
    ENHANCED[kind](tmp_path / "source")
    for source, derived in derive(tmp_path / "source").pairs:
        require_untouched(source, derived)


@pytest.mark.parametrize("kind", ENHANCED)
def test_smallest_and_largest_are_those_of_all_frames(kind: str, tmp_path: Path) -> None:
    for file in ENHANCED[kind](tmp_path / "source"):
        dataset = pydicom.dcmread(file)
        for keyword in ("SmallestImagePixelValue", "LargestImagePixelValue"):
            setattr(dataset, keyword, 7)
            dataset[keyword].VR = "SS" if dataset.PixelRepresentation else "US"
        dataset.save_as(file)
    for _, derived in derive(tmp_path / "source").pairs:
        assert derived.SmallestImagePixelValue == derived.pixel_array.min()
        assert derived.LargestImagePixelValue == derived.pixel_array.max()


def test_a_derivation_that_the_frames_share_comes_before_ours(tmp_path: Path) -> None:
    (file,) = make_enhanced(tmp_path / "source", modality="MR")
    dataset = pydicom.dcmread(file)
    earlier = Dataset()
    earlier.DerivationDescription = "Averaged"
    earlier.DerivationCodeSequence = []
    dataset.SharedFunctionalGroupsSequence[0].DerivationImageSequence = [earlier]
    dataset.save_as(file)
    ((_, derived),) = derive(tmp_path / "source").pairs
    assert "DerivationImageSequence" not in derived.SharedFunctionalGroupsSequence[0]
    for frame in derived.PerFrameFunctionalGroupsSequence:
        first, second = frame.DerivationImageSequence
        assert first.DerivationDescription == "Averaged"
        assert second.DerivationDescription == STUDENT.derivation


def test_what_a_converted_frame_says_of_its_own_pixels_goes(tmp_path: Path) -> None:
    (file,) = make_legacy_converted(tmp_path / "source", modality="MR")
    dataset = pydicom.dcmread(file)
    kept = "UnassignedPerFrameConvertedAttributesSequence"
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        (item,) = frame[kept].value
        item.SmallestImagePixelValue = 7
        item["SmallestImagePixelValue"].VR = "US"
        item.Laterality = "L"
    dataset.save_as(file)
    ((_, derived),) = derive(tmp_path / "source").pairs
    for frame in derived.PerFrameFunctionalGroupsSequence:
        (item,) = frame[kept].value
        assert "SmallestImagePixelValue" not in item
        assert item.Laterality == "L"


def test_an_instance_that_lacks_a_frame_is_not_written(tmp_path: Path) -> None:
    make_enhanced(tmp_path / "source", modality="MR", frames=6)
    (volume,) = volumes_in(tmp_path / "source")
    first, _ = blocks_of(volume)
    staging = tmp_path / "staging"
    staging.mkdir()
    with SeriesWriter(volume, STUDENT, staging) as writer:
        writer.add(Denoised(first, smoothed(first)))
        assert list(writer.folder.iterdir()) == []
    assert list(staging.iterdir()) == []


@pytest.mark.slow
def test_frames_wait_on_the_disk_so_memory_does_not_grow(tmp_path: Path) -> None:
    make_enhanced(tmp_path / "source", modality="CT", frames=96, rows=512, columns=512)
    (volume,) = volumes_in(tmp_path / "source")

    def denoised() -> Iterator[Denoised]:
        for start in range(96):
            block = volume.read(start, start + 1)
            yield Denoised(block, block.pixels)

    tracemalloc.start()
    derive_series(denoised(), volume, IDENTITY, tmp_path / "derived")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 96 * 512 * 512  # half of what the frames have


@pytest.mark.data
def test_real_multi_frame_series_are_derived_without_loss(
    stillscan_data: Path, tmp_path: Path
) -> None:
    for name, (instances, frames) in REAL.items():
        pairs = [
            pair
            for volume in volumes_in(stillscan_data / "dev" / "dicom" / name)
            for pair in derive_volume(volume, tmp_path / "derived").pairs
        ]
        assert len(pairs) == instances, name
        assert sum(int(source.NumberOfFrames) for source, _ in pairs) == frames, name
        for source, derived in pairs:
            assert np.array_equal(source.pixel_array, derived.pixel_array), name
            require_untouched(source, derived)
