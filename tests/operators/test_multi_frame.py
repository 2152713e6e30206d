"""Frames of multi-frame instances: exact, each once, in the order of space and time."""

import shutil
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_fragments
from pydicom.uid import ExplicitVRLittleEndian

from stillscan.operators import volume as volume_module
from stillscan.operators.errors import (
    DuplicateInstanceError,
    FileChangedError,
    MixedMatrixError,
    MixedPixelFormatError,
)
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import Catalogue, find_series, read_series
from stillscan.operators.reading.selection import SelectionRules
from stillscan.operators.volume import Volume, VolumeBlock
from tests.enhanced_factory import make_enhanced, make_legacy_converted
from tests.series_factory import COMPRESSED_SYNTAXES, NATIVE_SYNTAXES, make_series

PHASE = ["ORIGINAL", "PRIMARY", "P", "NONE"]
RCBF = ["DERIVED", "PRIMARY", "PERFUSION", "RCBF"]
REAL_SERIES = {  # frames of each instance of each series
    "mr_siemens_sola_body_snr_pair": [[1], [1]],
    "mr_siemens_sola_enhanced_acr_t1": [[11]],
    "mr_siemens_sola_headneck_snr_pair": [[1], [1]],
    "mr_siemens_xa30_enhanced_bold4": [[33, 33, 33, 33]],
    "mr_siemens_xa30_enhanced_t1": [[96]],
}


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as running:
        yield running


@pytest.fixture
def catalogue(decoder, tmp_path):
    def find(rules: SelectionRules | None = None) -> Catalogue:
        return find_series(tmp_path, decoder, rules or SelectionRules())

    return find


@pytest.fixture
def read_one(decoder, catalogue):
    """Read the one series under `tmp_path`."""

    def read() -> Volume:
        found = catalogue()
        assert not found.refused
        (candidate,) = found.candidates
        return read_series(candidate, decoder)

    return read


def whole(volume: Volume) -> VolumeBlock:
    return volume.read(0, len(volume.slices))


def edit_frames(path: Path, change) -> None:
    """Change the functional groups of each frame: `change(number, groups)`."""
    dataset = pydicom.dcmread(path)
    for number, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        change(number, groups)
    dataset.save_as(path)


def group_of(dataset: Dataset, frame: int, macro: str) -> Dataset:
    """One functional group of a frame as pydicom finds it; empty where there is none."""
    places = (
        dataset.PerFrameFunctionalGroupsSequence[frame],
        dataset.SharedFunctionalGroupsSequence[0],
    )
    return next((place[macro].value[0] for place in places if macro in place), Dataset())


def require_as_pydicom(volume: Volume) -> None:
    """Every frame of every file is in the volume once, with its pixels, slope and position."""
    files = {path: pydicom.dcmread(path) for path in {each.path for each in volume.slices}}
    everything = [(path, frame) for path in files for frame in range(files[path].NumberOfFrames)]
    assert sorted((each.path, each.frame) for each in volume.slices) == sorted(everything)
    pixels = {path: np.atleast_3d(file.pixel_array) for path, file in files.items()}
    for block in volume.blocks():
        slices = volume.slices[block.start : block.stop]
        for index, slice_ in enumerate(slices):
            source = files[slice_.path]
            stored = pixels[slice_.path].reshape(-1, volume.rows, volume.columns)[slice_.frame]
            rescale = group_of(source, slice_.frame, "PixelValueTransformationSequence")
            assert slice_.frames == source.NumberOfFrames
            assert block.headers[index].SOPInstanceUID == source.SOPInstanceUID
            assert (slice_.slope, slice_.intercept) == (
                float(rescale.RescaleSlope),
                float(rescale.RescaleIntercept),
            )
            assert np.array_equal(block.stored[index], stored)
            expected = stored * slice_.slope + slice_.intercept
            assert np.array_equal(block.pixels[index], expected.astype("f4"))


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("item", REAL_SERIES)
def test_frames_of_real_series_are_those_that_pydicom_finds(item, decoder, stillscan_data):
    found = find_series(stillscan_data / "dev" / "dicom" / item, decoder, SelectionRules())
    assert not found.refused
    frames = [[len(each.frames) for each in series.instances] for series in found.candidates]
    assert frames == REAL_SERIES[item]
    for candidate in found.candidates:
        require_as_pydicom(read_series(candidate, decoder))


@pytest.mark.parametrize("modality", ["MR", "CT"])
@pytest.mark.parametrize("signed", [False, True])
def test_slopes_may_differ_from_frame_to_frame(modality, signed, read_one, tmp_path):
    make_enhanced(tmp_path, modality=modality, signed=signed, per_frame_slope=True, frames=5)
    volume = read_one()
    assert volume.unit == ("HU" if modality == "CT" else "1")
    assert len({each.slope for each in volume.slices}) == 5
    require_as_pydicom(volume)


@pytest.mark.parametrize("modality", ["MR", "CT", "PT"])
def test_legacy_converted_series_has_the_pixels_of_its_classic_twin(
    modality, decoder, read_one, tmp_path
):
    series = {"modality": modality, "slices": 5, "per_slice_slope": modality == "PT"}
    converted, classic = tmp_path / "converted", tmp_path / "classic"
    make_legacy_converted(converted, **series)
    make_series(classic, **series)
    volumes = [
        read_series(find_series(each, decoder, SelectionRules()).candidates[0], decoder)
        for each in (converted, classic)
    ]
    blocks = [whole(volume) for volume in volumes]
    assert np.array_equal(blocks[0].stored, blocks[1].stored)
    assert np.array_equal(blocks[0].pixels, blocks[1].pixels)
    positions = [[each.position for each in volume.slices] for volume in volumes]
    assert positions[0] == positions[1]
    assert volumes[0].sop_class_uid != volumes[1].sop_class_uid


def test_padding_of_a_converted_series_is_found(decoder, tmp_path):
    make_legacy_converted(tmp_path, modality="CT", slices=3, padding=(10, 19))
    (candidate,) = find_series(tmp_path, decoder, SelectionRules()).candidates
    block = whole(read_series(candidate, decoder))
    assert np.array_equal(block.padding, (block.stored >= 10) & (block.stored <= 19))
    assert block.padding.any()


def test_frames_are_in_the_order_of_space_whatever_that_of_the_file(read_one, tmp_path):
    make_enhanced(tmp_path, frames=5, order=[3, 0, 4, 1, 2])
    volume = read_one()
    assert [each.position for each in volume.slices] == [0, 3, 6, 9, 12]
    assert [each.frame for each in volume.slices] == [1, 3, 4, 0, 2]
    require_as_pydicom(volume)


def test_repetitions_in_files_of_their_own_stay_apart(read_one, tmp_path):
    files = make_enhanced(tmp_path, modality="MR", frames=3, instances=4)
    volume = read_one()
    assert [each.path for each in volume.slices] == [file for file in files for _ in range(3)]
    assert [each.position for each in volume.slices] == [0, 3, 6] * 4
    assert "images at positions of others: 9" in volume.warnings[0]
    require_as_pydicom(volume)


def test_repetitions_in_one_file_follow_their_dimension_index(read_one, tmp_path):
    """Two echoes of three positions, echo by echo though the file has them interleaved."""
    (path,) = make_enhanced(tmp_path, modality="MR", frames=6, order=[0, 0, 1, 1, 2, 2])
    dataset = pydicom.dcmread(path)
    echo = Dataset()
    echo.DimensionIndexPointer, echo.FunctionalGroupPointer = 0x00189082, 0x00189114
    dataset.DimensionIndexSequence.append(echo)
    for number, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        content = groups.FrameContentSequence[0]
        content.DimensionIndexValues = [1, number // 2 + 1, 2 - number % 2]
    dataset.save_as(path)
    volume = read_one()
    assert [each.frame for each in volume.slices] == [1, 3, 5, 0, 2, 4]
    assert [each.position for each in volume.slices] == [0, 3, 6, 0, 3, 6]


def test_stacks_stay_apart_even_at_one_direction(read_one, tmp_path):
    (path,) = make_enhanced(tmp_path, modality="MR", frames=6)

    def interleave(number: int, groups: Dataset) -> None:
        groups.FrameContentSequence[0].StackID = str(number % 2 + 1)

    edit_frames(path, interleave)
    volume = read_one()
    assert [each.frame for each in volume.slices] == [0, 2, 4, 1, 3, 5]
    assert volume.warnings == (
        "2 stacks or orientations in one series: each image is processed separately",
    )


def test_frames_of_an_instance_stay_together(read_one, tmp_path):
    """A cine series of one instance for each position: time runs inside the instance."""
    files = make_enhanced(tmp_path, modality="MR", frames=4, instances=3)
    for place, path in enumerate(files):

        def stand_still(number: int, groups: Dataset, place: int = place) -> None:
            groups.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 30 - place * 10]

        edit_frames(path, stand_still)
    volume = read_one()
    assert [each.path for each in volume.slices] == [f for f in files[::-1] for _ in range(4)]
    assert [each.frame for each in volume.slices] == [0, 1, 2, 3] * 3


def test_frames_of_one_instance_share_one_header(read_one, tmp_path, monkeypatch):
    make_enhanced(tmp_path, frames=7, instances=2, modality="MR", rows=32, columns=32)
    monkeypatch.setattr(volume_module, "BLOCK_PIXELS", 3 * 32 * 32)
    blocks = list(read_one().blocks())
    headers = [header for block in blocks for header in block.headers]
    assert [len(block.headers) for block in blocks] == [3, 3, 3, 3, 2]
    assert len({id(header) for header in headers}) == 2
    assert len(headers[0].PerFrameFunctionalGroupsSequence) == 7
    assert "PixelData" not in headers[0]


@pytest.mark.parametrize("syntax", [*NATIVE_SYNTAXES, *COMPRESSED_SYNTAXES])
def test_frames_of_every_syntax_are_those_of_the_uncompressed_twin(
    syntax, decoder, read_one, tmp_path
):
    frames = {"frames": 4, "rows": 37, "columns": 41, "order": [2, 0, 3, 1]}
    make_enhanced(tmp_path / "it", transfer_syntax=syntax, **frames)
    (twin,) = make_enhanced(tmp_path.parent / f"{tmp_path.name}_twin", **frames)
    expected = pydicom.dcmread(twin).pixel_array
    volume = read_one()
    for slice_ in volume.slices[::-1]:  # one frame, whichever, is enough
        _, stored = volume.reader.read([slice_])
        assert np.array_equal(stored[0], expected[slice_.frame])


def fragmented(path: Path, offset_table: str) -> None:
    """Break each frame into three fragments, and say in an offset table where frames begin."""
    dataset = pydicom.dcmread(path)
    frames = list(generate_fragments(dataset.PixelData))[1:]
    assert len(frames) == dataset.NumberOfFrames
    if offset_table == "extended":
        one_each = pydicom.encaps.encapsulate_extended(frames)
        dataset.PixelData, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = (
            one_each
        )
    else:
        dataset.PixelData = encapsulate(frames, fragments_per_frame=3, has_bot=True)
        if offset_table != "basic":
            length = 4 * dataset.NumberOfFrames
            zeros = struct.pack("<HHI", 0xFFFE, 0xE000, length) + bytes(length)
            nothing = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
            table = zeros if offset_table == "zeros" else nothing
            dataset.PixelData = table + dataset.PixelData[8 + length :]
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)


@pytest.mark.parametrize("offset_table", ["basic", "extended", "zeros", "none"])
@pytest.mark.parametrize("syntax", [s for s in COMPRESSED_SYNTAXES if s != "1.2.840.10008.1.2.5"])
def test_fragments_find_their_frames(syntax, offset_table, read_one, tmp_path):
    (path,) = make_enhanced(tmp_path, transfer_syntax=syntax, frames=3)
    expected = pydicom.dcmread(path).pixel_array
    fragmented(path, offset_table)
    assert np.array_equal(whole(read_one()).stored, expected)


def test_fragments_that_nobody_can_tell_apart_are_refused(catalogue, tmp_path):
    (path,) = make_enhanced(tmp_path, transfer_syntax="1.2.840.10008.1.2.5", frames=3)
    fragmented(path, "none")
    (refusal,) = catalogue().refused
    assert refusal.reason == "corrupt-pixel-data"
    assert "found 9 fragments for 3 frames" in refusal.message


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, "1.2.840.10008.1.2.4.90"])
def test_more_frames_than_pixels_are_refused(syntax, catalogue, tmp_path):
    (path,) = make_enhanced(tmp_path, transfer_syntax=syntax, frames=3)
    dataset = pydicom.dcmread(path)
    dataset.NumberOfFrames = 2**31 - 1
    dataset.save_as(path)
    (refusal,) = catalogue().refused
    assert refusal.reason == "pixel-data-length"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda it: it.PerFrameFunctionalGroupsSequence.pop(), "invalid-attribute"),
        (lambda it: delattr(it, "PerFrameFunctionalGroupsSequence"), "missing-attribute"),
        (lambda it: setattr(it, "ConcatenationUID", "1.2.3"), "concatenation"),
        (lambda it: setattr(it, "PixelPresentation", "COLOR"), "colour"),
        (lambda it: setattr(it, "ImageType", RCBF), "quantitative-map"),
        (lambda it: setattr(it, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"), "multi-frame-not-"),
    ],
)
def test_instances_that_are_refused(change, reason, catalogue, tmp_path):
    (path,) = make_enhanced(tmp_path)
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    (refusal,) = catalogue().refused
    assert refusal.reason.startswith(reason)
    assert path.name in refusal.message


@pytest.mark.parametrize(
    ("attributes", "reason", "rules"),
    [
        ({"FrameType": PHASE}, "phase-or-complex", {"complex_images": "process"}),
        ({"ComplexImageComponent": "PHASE"}, "phase-or-complex", {"complex_images": "process"}),
        ({"FrameType": RCBF}, "quantitative-map", {"maps": "process"}),
        ({"VolumeBasedCalculationTechnique": "MAX_IP"}, "reformatted", {"reformatted": "process"}),
    ],
)
@pytest.mark.parametrize("of_some", [False, True])
def test_frame_types_refuse_all_frames_or_the_mixture(
    attributes, reason, rules, of_some, catalogue, tmp_path
):
    (path,) = make_enhanced(tmp_path, modality="MR", frames=4)

    def change(number: int, groups: Dataset) -> None:
        if not of_some or number % 2:
            for keyword, value in attributes.items():
                setattr(groups.MRImageFrameTypeSequence[0], keyword, value)

    edit_frames(path, change)
    (refusal,) = catalogue().refused
    assert refusal.reason == ("mixed-frame-types" if of_some else reason)
    assert refusal.by_rules
    assert len(catalogue(SelectionRules(**rules)).candidates) == 1


@pytest.mark.data
def test_perfusion_map_of_an_enhanced_ct_is_a_quantitative_map(decoder, stillscan_data):
    folder = stillscan_data / "dev" / "dicom" / "ct_enhanced_2frames"
    (refusal,) = find_series(folder, decoder, SelectionRules()).refused
    assert (refusal.reason, refusal.by_rules) == ("quantitative-map", True)


def test_matrix_must_be_one_over_all_instances(catalogue, tmp_path):
    make_enhanced(tmp_path)
    other = make_enhanced(tmp_path / "other", instances=2, rows=50)
    other[0].unlink()
    (refusal,) = catalogue().refused
    assert refusal.reason == MixedMatrixError.reason
    assert "differ in Rows: 48 and 50" in refusal.message


def test_unit_must_be_one_over_all_frames(decoder, catalogue, tmp_path):
    (path,) = make_enhanced(tmp_path)

    def change(number: int, groups: Dataset) -> None:
        if number == 2:
            groups.PixelValueTransformationSequence[0].RescaleType = "ED"

    edit_frames(path, change)
    (refusal,) = catalogue().refused
    assert refusal.reason == MixedPixelFormatError.reason
    assert "frames 1 and 3 differ in RescaleType: HU and ED" in refusal.message


def test_copy_of_a_multi_frame_instance_is_used_once(read_one, catalogue, tmp_path):
    (path,) = make_enhanced(tmp_path, frames=3)
    copy = tmp_path / "copy.dcm"
    shutil.copy(path, copy)
    assert len(read_one().slices) == 3
    content = copy.read_bytes()
    copy.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # the last frame alone differs
    (refusal,) = catalogue().refused
    assert refusal.reason == DuplicateInstanceError.reason


def test_file_that_changes_between_blocks_is_refused(read_one, tmp_path):
    (path,) = make_enhanced(tmp_path, frames=4)
    volume = read_one()
    volume.read(0, 2)
    (other,) = make_enhanced(tmp_path / "other", frames=4, seed=1)
    shutil.copy(other, path)
    with pytest.raises(FileChangedError, match=path.name):
        volume.read(2, 4)


def test_file_that_lost_frames_is_refused(read_one, tmp_path):
    make_enhanced(tmp_path, frames=4)
    volume = read_one()
    make_enhanced(tmp_path, frames=2)
    with pytest.raises(FileChangedError, match="has 2 frames now"):
        volume.read(2, 4)
