"""Folders become series, series become volumes: exact pixels, kept apart, nothing lost or mixed."""

import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLosslessSV1

from stillscan.operators import volume as volume_module
from stillscan.operators.errors import (
    DuplicateInstanceError,
    FileChangedError,
    IdentityConflictError,
    InputError,
    MixedMatrixError,
    MixedPhotometricError,
    MixedPixelFormatError,
    MixedSeriesError,
    input_error,
)
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import Catalogue, find_series, read_series
from stillscan.operators.reading.selection import SelectionRules
from stillscan.operators.volume import Volume, VolumeBlock
from tests.series_factory import make_series

CANARY = "CANARY"
SERIES_OF_REAL_DATA = {  # slices of each series that is processed
    "cr_fuji_leg_mono1_j2k": [1],
    "ct_ge_hispeed_head_tilt": [12],
    "ct_siemens_gantry_tilt": [4],
    "ct_siemens_not_a_volume": [4],
    "mr_ge_artist_acr_t1": [11],
    "mr_ge_hdxt_fruit_irspgr": [14],
    "mr_ge_snr_pair": [1, 1],
    "mr_odd_two_slices": [2],
    "mr_siemens_aera_snr_pair": [1, 1],
    "mr_siemens_prisma_t1_sag": [12],
}


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as running:
        yield running


@pytest.fixture
def catalogue(decoder, tmp_path):
    """Find the series under `tmp_path`."""

    def find() -> Catalogue:
        return find_series(tmp_path, decoder, SelectionRules())

    return find


@pytest.fixture
def read_one(decoder, catalogue):
    """Read the one series under `tmp_path`."""

    def read() -> Volume:
        found = catalogue()
        for refusal in found.refused:
            raise input_error(refusal.reason, refusal.message)
        (candidate,) = found.candidates
        return read_series(candidate, decoder)

    return read


def whole(volume: Volume) -> VolumeBlock:
    return volume.read(0, len(volume.slices))


def edit(path: Path, **attributes: object) -> None:
    dataset = pydicom.dcmread(path)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)


def scrambled(files: list[Path]) -> None:
    """Give the files names that say nothing of their order."""
    for number, path in enumerate(files):
        path.rename(path.with_name(f"{(number * 7 + 3) % 11:02d}_{number}"))


@pytest.mark.parametrize("modality", ["MR", "CT", "PT", "CR", "DX"])
def test_pixels_are_stored_values_times_slope_plus_intercept(modality, read_one, tmp_path):
    files = make_series(tmp_path, modality=modality, per_slice_slope=modality != "DX")
    block = whole(read_one())
    assert block.pixels.dtype == np.float32
    for path, stored, pixels in zip(files, block.stored, block.pixels, strict=True):
        source = pydicom.dcmread(path)
        slope = float(source.get("RescaleSlope", 1))
        intercept = float(source.get("RescaleIntercept", 0))
        assert np.array_equal(stored, source.pixel_array)
        np.testing.assert_allclose(pixels, stored * slope + intercept, rtol=1e-6)


@pytest.mark.parametrize(("modality", "unit"), [("MR", "1"), ("CT", "HU"), ("PT", "BQML")])
def test_unit_is_that_of_the_modality(modality, unit, read_one, tmp_path):
    make_series(tmp_path, modality=modality, slices=1)
    assert read_one().unit == unit


@pytest.mark.parametrize("slope", ["0", "1e-40", "-1e31", "NaN", "inf", "1e400", "one"])
def test_slope_that_cannot_be_inverted_is_refused(slope, catalogue, tmp_path):
    (path,) = make_series(tmp_path, modality="CT", slices=1)
    source = path.read_bytes()
    at = source.index(b"\x28\0\x53\x10DS") + 6
    length = source[at]
    value = slope.ljust(len(slope) + len(slope) % 2).encode()
    path.write_bytes(source[:at] + bytes([len(value), 0]) + value + source[at + 2 + length :])
    (refusal,) = catalogue().refused
    assert refusal.reason == "invalid-rescale"


def test_order_of_files_does_not_matter(decoder, catalogue, tmp_path):
    scrambled(make_series(tmp_path, slices=6, InstanceNumber=lambda index: 6 - index))
    volume = read_series(catalogue().candidates[0], decoder)
    assert [each.position for each in volume.slices] == sorted(
        each.position for each in volume.slices
    )
    assert [each.instance_number for each in volume.slices] == [6, 5, 4, 3, 2, 1]
    headers = whole(volume).headers
    assert [each.SOPInstanceUID for each in headers] == [
        each.sop_instance_uid for each in volume.slices
    ]


@pytest.mark.parametrize("signed", [False, True])
def test_padding_value_and_range_are_found(signed, read_one, tmp_path):
    least = -2000 if signed else 10
    make_series(tmp_path, modality="CT", slices=1, signed=signed, padding=(least, least + 9))
    block = whole(read_one())
    expected = (block.stored >= least) & (block.stored <= least + 9)
    assert np.array_equal(block.padding, expected)
    assert expected.any()


def test_image_without_padding_value_has_no_padding(read_one, tmp_path):
    make_series(tmp_path, slices=1)
    assert not whole(read_one()).padding.any()


def test_monochrome1_keeps_its_polarity(read_one, tmp_path):
    (path,) = make_series(tmp_path, modality="CR", slices=1, photometric="MONOCHROME1")
    block = whole(read_one())
    assert np.array_equal(block.pixels[0], pydicom.dcmread(path).pixel_array)


def test_sign_is_extended_where_the_file_does_not(read_one, tmp_path):
    (path,) = make_series(tmp_path, modality="CT", slices=1, signed=True, bits_stored=12)
    dataset = pydicom.dcmread(path)
    expected = dataset.pixel_array.copy()
    dataset.PixelData = (expected & 0x0FFF).tobytes()
    dataset.save_as(path)
    assert expected.min() < 0
    assert np.array_equal(whole(read_one()).stored[0], expected)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [0x8000, 0x1000, 0x5000, 0xF000])
def test_bits_that_nobody_declared_are_cleared(read_one, tmp_path, signed, bits):
    (path,) = make_series(tmp_path, modality="CT", slices=1, bits_stored=12, signed=signed)
    dataset = pydicom.dcmread(path)
    expected = dataset.pixel_array.copy()
    cells = expected.view("<u2") & 0x0FFF
    cells[10:20] |= bits
    dataset.PixelData = cells.tobytes()
    dataset.save_as(path)
    volume = read_one()
    assert np.array_equal(whole(volume).stored[0], expected)
    (warning,) = volume.found_in_pixels
    assert "1 of 1 slices" in warning


def test_padding_may_lie_outside_the_stored_range(read_one, tmp_path):
    (path,) = make_series(tmp_path, modality="CT", slices=1, bits_stored=12)
    dataset = pydicom.dcmread(path)
    stored = dataset.pixel_array.copy()
    stored[:8] = 63536  # -2000 in unsigned words
    dataset.add_new("PixelPaddingValue", "US", 63536)
    dataset.PixelData = stored.tobytes()
    dataset.save_as(path)
    block = whole(read_one())
    assert np.array_equal(block.stored[0], stored)
    assert np.array_equal(block.padding[0], stored == 63536)


def test_overlay_in_the_pixels_is_refused(catalogue, tmp_path):
    (path,) = make_series(tmp_path, slices=1)
    dataset = pydicom.dcmread(path)
    dataset.add_new(0x60000100, "US", 16)
    dataset.add_new(0x60000102, "US", 12)
    dataset.save_as(path)
    (refusal,) = catalogue().refused
    assert refusal.reason == "overlay-in-pixels"
    assert "OverlayBitPosition: found 12" in refusal.message


def test_series_and_patients_are_kept_apart(decoder, catalogue, tmp_path):
    for seed in range(3):
        make_series(tmp_path, slices=3, seed=seed, StudyInstanceUID="1.2.3", SeriesNumber=seed + 5)
    make_series(tmp_path, modality="CT", slices=2)
    candidates = catalogue().candidates
    assert sorted(each.slices for each in candidates) == [2, 3, 3, 3]
    for candidate in candidates:
        headers = whole(read_series(candidate, decoder)).headers
        assert {each.SeriesInstanceUID for each in headers} == {candidate.series_instance_uid}
        assert len({each.PatientID for each in headers}) == 1
    numbers = {each.modality: each.sibling_series_numbers for each in candidates}
    assert numbers == {"MR": {5, 6, 7}, "CT": {3}}


def test_refused_series_does_not_fail_the_others(decoder, catalogue, tmp_path):
    make_series(tmp_path, slices=3)
    broken = make_series(tmp_path, slices=3, seed=1)
    broken[1].write_bytes(broken[1].read_bytes()[:-10])
    found = catalogue()
    assert len(found.candidates) == 1
    (refusal,) = found.refused
    assert (refusal.reason, len(refusal.files)) == ("truncated-file", 3)
    assert broken[1].name in refusal.message
    assert len(whole(read_series(found.candidates[0], decoder)).headers) == 3


@pytest.mark.parametrize("keyword", ["PatientID", "PatientName", "PatientBirthDate"])
def test_two_patients_in_one_series_are_a_conflict(keyword, read_one, tmp_path):
    value = {"PatientBirthDate": "19990101"}.get(keyword, CANARY)
    files = make_series(tmp_path, slices=3)
    edit(files[2], **{keyword: value})
    with pytest.raises(IdentityConflictError, match=f"differ in {keyword}") as raised:
        read_one()
    assert value not in str(raised.value)


def test_padding_and_empty_components_of_a_name_are_no_conflict(decoder, catalogue, tmp_path):
    files = make_series(tmp_path, slices=2, PatientName="Phantom^Seed")
    edit(files[1], PatientName="PHANTOM^Seed^^ ")
    assert len(read_series(catalogue().candidates[0], decoder).slices) == 2


@pytest.mark.parametrize(
    ("attributes", "error", "message"),
    [
        ({"StudyInstanceUID": "1.2.3"}, MixedSeriesError, "StudyInstanceUID: .* and 1.2.3;"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, MixedPhotometricError, "MONOCHROME2 and"),
        ({"PixelRepresentation": 1}, MixedPixelFormatError, "PixelRepresentation: 0 and 1"),
        ({"RescaleType": "US"}, MixedPixelFormatError, "RescaleType or Units: HU and none"),
    ],
)
def test_what_one_series_must_share(attributes, error, message, read_one, tmp_path):
    files = make_series(tmp_path, modality="CT", slices=3)
    edit(files[2], **attributes)
    with pytest.raises(error, match=message) as raised:
        read_one()
    assert files[0].name in str(raised.value)
    assert files[2].name in str(raised.value)


def test_mixed_matrix_names_both_instances_and_sizes(read_one, tmp_path):
    make_series(tmp_path, slices=1)
    other = make_series(tmp_path / "other", slices=2, rows=48)[1]
    with pytest.raises(MixedMatrixError) as raised:
        read_one()
    assert "MR_0_0001.dcm and MR_0_0001.dcm differ in Rows: 64 and 48" in str(raised.value)
    assert other.exists()


@pytest.mark.parametrize(
    ("syntax", "modality"), [(ImplicitVRLittleEndian, "MR"), (JPEGLosslessSV1, "CT")]
)
def test_copy_is_used_once_in_whatever_syntax_it_is(syntax, modality, read_one, tmp_path):
    make_series(tmp_path, modality=modality, slices=3, transfer_syntax=ExplicitVRLittleEndian)
    copies = make_series(tmp_path / "z", modality=modality, slices=3, transfer_syntax=syntax)
    for path in copies[1:]:
        path.unlink()
    volume = read_one()
    assert len(volume.slices) == 3
    assert volume.warnings == (f"{copies[0].name} is a copy of {copies[0].name}: left out",)


@pytest.mark.parametrize("what", ["header", "pixels"])
def test_same_instance_with_other_content_is_refused(what, read_one, tmp_path):
    (path,) = make_series(tmp_path, slices=1)
    copy = shutil.copy(path, tmp_path / "copy.dcm")
    if what == "header":
        edit(copy, EchoTime="9")
    else:
        whole_file = copy.read_bytes()
        copy.write_bytes(whole_file[:-1] + bytes([whole_file[-1] ^ 1]))
    with pytest.raises(DuplicateInstanceError, match=r"copy\.dcm have the same SOPInstanceUID"):
        read_one()


def test_repeated_positions_stay_in_their_repetition(read_one, tmp_path):
    make_series(  # two echoes of three positions, interleaved
        tmp_path,
        slices=6,
        ImagePositionPatient=lambda index: ["0", "0", str(index // 2 * 3)],
        EchoTime=lambda index: str(4 + index % 2),
    )
    volume = read_one()
    assert [each.position for each in volume.slices] == [0, 3, 6, 0, 3, 6]
    assert [each.instance_number for each in volume.slices] == [1, 3, 5, 2, 4, 6]
    assert [float(each.EchoTime) for each in whole(volume).headers] == [4, 4, 4, 5, 5, 5]
    assert volume.warnings == (
        "images at positions of others: 3; each image is processed separately",
    )


def test_gap_is_a_warning(read_one, tmp_path):
    files = make_series(tmp_path, slices=7)
    files[3].unlink()
    (warning,) = read_one().warnings
    assert "MR_0_0003.dcm to MR_0_0005.dcm, 6 mm" in warning


def test_direction_cosines_that_differ_in_the_sixth_digit_are_one_stack(read_one, tmp_path):
    make_series(
        tmp_path,
        slices=3,
        ImageOrientationPatient=lambda i: ["1", f"{i}e-6", "0", f"-{i}e-6", "1", "0"],
    )
    assert read_one().warnings == ()


def test_image_without_geometry_keeps_the_order_of_its_numbers(read_one, tmp_path):
    make_series(
        tmp_path, slices=3, ImagePositionPatient=None, InstanceNumber=lambda index: 9 - index
    )
    volume = read_one()
    assert [each.instance_number for each in volume.slices] == [7, 8, 9]
    assert [each.position for each in volume.slices] == [None, None, None]
    assert "no geometry" in volume.warnings[0]


def test_junk_pipes_devices_and_links_do_no_harm(decoder, tmp_path):
    folder = tmp_path / "in"
    (path,) = make_series(folder / "sub", slices=1)
    (folder / "notes.txt").write_text("notes")
    (folder / "empty.dcm").touch()
    os.mkfifo(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "nowhere").symlink_to(folder / "missing")
    (folder / "sub" / "loop").symlink_to(folder)
    (tmp_path / "elsewhere").mkdir()
    path.rename(tmp_path / "elsewhere" / "linked")
    (folder / "link.dcm").symlink_to(tmp_path / "elsewhere" / "linked")
    found = find_series(folder, decoder, SelectionRules())
    assert [each.slices for each in found.candidates] == [1]
    assert {each.reason for each in found.skipped} == {"not-dicom", "empty-file"}
    assert {each.files[0].name for each in found.refused} == {"pipe", "zero", "nowhere"}
    assert {each.reason for each in found.refused} == {"unreadable-file"}


def test_one_file_is_input_too(decoder, tmp_path):
    files = make_series(tmp_path, slices=3)
    (candidate,) = find_series(files[1], decoder, SelectionRules()).candidates
    assert candidate.slices == 1


def test_file_that_changed_since_the_listing_is_refused(read_one, tmp_path):
    files = make_series(tmp_path, slices=2)
    volume = read_one()
    shutil.copy(files[0], files[1])
    with pytest.raises(FileChangedError, match=files[1].name):
        whole(volume)


def test_file_that_disappeared_is_refused_by_name(read_one, tmp_path):
    files = make_series(tmp_path, slices=2)
    volume = read_one()
    files[1].unlink()
    with pytest.raises(InputError, match=f"{files[1].name}: cannot be opened"):
        whole(volume)


def test_memory_does_not_grow_with_the_series(read_one, tmp_path, monkeypatch):
    make_series(tmp_path, slices=40, rows=128, columns=128)
    monkeypatch.setattr(volume_module, "BLOCK_PIXELS", 4 * 128 * 128)
    volume = read_one()
    tracemalloc.start()
    sizes = [len(block.headers) for block in volume.blocks()]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sizes == [4] * 10
    block_bytes = 4 * 128 * 128 * (2 + 4 + 1)
    assert peak < 6 * block_bytes, "a block or two, not ten"


@pytest.mark.filterwarnings("ignore:Unknown encoding")  # said by pydicom
def test_no_patient_data_in_anything_that_can_be_printed(decoder, catalogue, tmp_path):
    canaries = {
        "PatientName": f"{CANARY}^Name",
        "PatientID": f"{CANARY}ID",
        "PatientComments": CANARY,
        "OtherPatientIDs": CANARY,
        "ReferringPhysicianName": CANARY,
        "InstitutionName": CANARY,
        "AccessionNumber": CANARY,
        "StudyDescription": CANARY,
    }
    make_series(tmp_path, slices=2, **canaries)
    broken = make_series(tmp_path, slices=2, seed=1, **canaries)[1]
    broken.write_bytes(broken.read_bytes()[:-9])
    make_series(tmp_path, slices=2, seed=2, PhotometricInterpretation=CANARY, **canaries)
    make_series(tmp_path, slices=2, seed=3, SpecificCharacterSet=CANARY, **canaries)
    found = catalogue()
    read = [read_series(each, decoder) for each in found.candidates]
    printed = repr(found) + repr([(v.slices, v.warnings) for v in read])
    printed = printed.replace(f"found {CANARY!r}", "")  # technical attributes are named as found
    assert f"{CANARY}^" not in printed
    assert f"{CANARY}ID" not in printed


@pytest.mark.data
@pytest.mark.parametrize("item", SERIES_OF_REAL_DATA)
def test_real_series_have_the_pixels_that_pydicom_finds(item, decoder, stillscan_data):
    found = find_series(stillscan_data / "dev" / "dicom" / item, decoder, SelectionRules())
    assert sorted(each.slices for each in found.candidates) == SERIES_OF_REAL_DATA[item]
    assert not found.refused
    for candidate in found.candidates:
        volume = read_series(candidate, decoder)
        for block in volume.blocks():
            require_as_pydicom(block)


def require_as_pydicom(block: VolumeBlock) -> None:
    slices = block.volume.slices[block.start : block.stop]
    for slice_, stored, pixels in zip(slices, block.stored, block.pixels, strict=True):
        source: Dataset = pydicom.dcmread(slice_.path)
        expected = source.pixel_array
        slope, intercept = source.get("RescaleSlope", 1), source.get("RescaleIntercept", 0)
        assert np.array_equal(stored, expected)
        assert np.array_equal(pixels, (expected * float(slope) + float(intercept)).astype("f4"))
