"""A derived series on disk: exact pixels, whole or not there at all (W1, W2, W7, W10, W12)."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from stillscan.operators.errors import (
    ClippedPixelsError,
    DiskFullError,
    ExitCode,
    IncompleteSeriesError,
    MeanMovedError,
    NotFinitePixelsError,
    NothingChangedError,
    NotWritableError,
    OutputError,
    ResultError,
    StillscanError,
)
from stillscan.operators.volume import VolumeBlock
from stillscan.operators.writing.derive_series import derive_series
from tests.derived import (
    IDENTITY,
    STUDENT,
    Denoised,
    blocks_of,
    derive,
    derive_volume,
    real_volumes,
    smoothed,
    unchanged,
    volumes_in,
)
from tests.series_factory import (
    COMPRESSED_SYNTAXES,
    NATIVE_SYNTAXES,
    SOP_CLASSES,
    make_series,
)

VARIANTS: dict[str, dict[str, object]] = {
    **{modality: {"modality": modality} for modality in SOP_CLASSES},
    **{f"CR {bits} bits": {"modality": "CR", "bits_stored": bits} for bits in (8, 10, 12, 14, 16)},
    **{
        f"MR signed {bits} bits": {"signed": True, "bits_stored": bits}
        for bits in (8, 10, 12, 14, 16)
    },
    "CT signed": {"modality": "CT", "signed": True},
    "CT padded": {"modality": "CT", "signed": True, "bits_stored": 16, "padding": -2000},
    "CT padded by a range": {
        "modality": "CT",
        "signed": True,
        "bits_stored": 16,
        "padding": (-2000, -1990),
    },
    "CR padded with zero": {"modality": "CR", "padding": 0},
    "PT slopes per slice": {"modality": "PT", "per_slice_slope": True, "slope": 0.1234567},
    "PT signed slopes": {
        "modality": "PT",
        "signed": True,
        "per_slice_slope": True,
        "slope": 3.0e-4,
    },
    "MR slopes per slice": {"per_slice_slope": True, "slope": 2.7182818, "intercept": -3.3},
    "CR MONOCHROME1": {"modality": "CR", "photometric": "MONOCHROME1"},
    "DX MONOCHROME1": {"modality": "DX", "photometric": "MONOCHROME1"},
    "odd matrix": {"modality": "CR", "bits_stored": 8, "rows": 67, "columns": 61},
    **{str(uid.name): {"transfer_syntax": uid} for uid in NATIVE_SYNTAXES + COMPRESSED_SYNTAXES},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_identity_denoiser_keeps_every_pixel(variant: str, tmp_path: Path) -> None:
    made = make_series(tmp_path / "source", **VARIANTS[variant])  # type: ignore[arg-type]
    derivation = derive(tmp_path / "source", unchanged, IDENTITY)
    assert derivation.series.changed_share == 0
    assert len(derivation.pairs) == len(made)
    for source, derived in derivation.pairs:
        assert np.array_equal(source.pixel_array, derived.pixel_array)
        assert derived.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        for keyword in (
            "BitsAllocated",
            "BitsStored",
            "HighBit",
            "PixelRepresentation",
            "PhotometricInterpretation",
            "RescaleSlope",
            "RescaleIntercept",
            "RescaleType",
            "InstanceNumber",
        ):
            assert derived.get(keyword) == source.get(keyword)


@pytest.mark.data
def test_identity_denoiser_keeps_every_pixel_of_real_series(
    stillscan_data: Path, tmp_path: Path
) -> None:
    slices = 0
    for name, volume in real_volumes(stillscan_data, tmp_path):
        derivation = derive_volume(volume, tmp_path / "derived")
        for source, derived in derivation.pairs:
            assert np.array_equal(source.pixel_array, derived.pixel_array), name
            slices += 1
    assert slices >= 75 + 9 + 2  # classic series, encodings without loss, pydicom's own


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, JPEG2000Lossless])
def test_every_syntax_becomes_the_same_files(syntax: str, tmp_path: Path) -> None:
    contents = []
    for each in (ExplicitVRLittleEndian, syntax):
        source = tmp_path / each / "source"
        make_series(source, modality="CT", signed=True, transfer_syntax=each)
        contents.append([file.read_bytes() for _, file in derive(source).files])
    assert contents[0] == contents[1]


def test_derived_pixels_are_what_the_denoiser_said(tmp_path: Path) -> None:
    make_series(tmp_path / "source", modality="PT", per_slice_slope=True, slope=0.37, signed=True)
    (volume,) = volumes_in(tmp_path / "source")
    wanted = np.concatenate([smoothed(block) for block in blocks_of(volume)])
    for (_, derived), expected in zip(derive(tmp_path / "source").pairs, wanted, strict=True):
        shown = derived.pixel_array * float(derived.RescaleSlope)
        assert np.abs(shown - expected).max() <= 0.51 * float(derived.RescaleSlope)


def test_padding_is_bit_identical_and_no_real_pixel_joins_it(tmp_path: Path) -> None:
    make_series(
        tmp_path / "source", modality="CT", signed=True, bits_stored=16, padding=(-2000, -1990)
    )
    for source, derived in derive(tmp_path / "source").pairs:
        before, after = source.pixel_array, derived.pixel_array
        padding = (before >= -2000) & (before <= -1990)
        assert 0.1 < padding.mean() < 0.5
        assert np.array_equal(after[padding], before[padding])
        assert not np.any((after[~padding] >= -2000) & (after[~padding] <= -1990))
        assert not np.array_equal(after, before)


def test_monochrome1_keeps_its_polarity(tmp_path: Path) -> None:
    make_series(tmp_path / "source", modality="CR", photometric="MONOCHROME1")
    for source, derived in derive(tmp_path / "source").pairs:
        correlation = np.corrcoef(source.pixel_array.ravel(), derived.pixel_array.ravel())
        assert derived.PhotometricInterpretation == "MONOCHROME1"
        assert correlation[0, 1] > 0.9


@pytest.mark.parametrize(("bits", "vr"), [(8, "OB"), (12, "OW")])
def test_pixel_data_has_the_vr_of_its_bits(bits: int, vr: str, tmp_path: Path) -> None:
    make_series(tmp_path / "source", modality="CR", slices=1, bits_stored=bits, rows=67, columns=61)
    ((_, derived),) = derive(tmp_path / "source").pairs
    assert vr == derived["PixelData"].VR
    assert len(derived.PixelData) % 2 == 0


# One instance per instance, new identity (W1, W2)


def test_derived_uids_are_new_distinct_and_repeatable(tmp_path: Path) -> None:
    make_series(tmp_path / "source", slices=7)
    first = derive(tmp_path / "source")
    sources = {uid for each in first.volume.slices for uid in (each.sop_instance_uid,)}
    made = set(first.series.sop_instance_uids)
    assert len(made) == 7
    assert not made & (sources | {first.volume.series_instance_uid})
    assert derive(tmp_path / "source").series == first.series


def test_slices_of_the_source_are_derived_one_to_one(tmp_path: Path) -> None:
    make_series(tmp_path / "source", slices=7)
    for source, derived in derive(tmp_path / "source").pairs:
        assert derived.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert derived.InstanceNumber == source.InstanceNumber


def test_series_and_files_are_named_by_our_own_uids(tmp_path: Path) -> None:
    make_series(tmp_path / "source", SeriesDescription="../../evil", PatientID="../x")
    series = derive(tmp_path / "source").series
    assert series.folder == tmp_path / "derived" / series.series_instance_uid
    found = sorted(path.relative_to(tmp_path) for path in (tmp_path / "derived").rglob("*"))
    names = {f"{uid}.dcm" for uid in series.sop_instance_uids}
    assert {path.name for path in found} == names | {series.series_instance_uid}
    assert all(name.startswith("2.25.") for name in names)


def test_the_source_is_not_touched(tmp_path: Path) -> None:
    files = make_series(tmp_path / "source")
    before = [(file.read_bytes(), file.stat().st_mtime_ns) for file in files]
    derive(tmp_path / "source")
    assert [(file.read_bytes(), file.stat().st_mtime_ns) for file in files] == before


def test_deriving_does_not_change_the_headers_that_it_is_given(tmp_path: Path) -> None:
    make_series(tmp_path / "source")
    (volume,) = volumes_in(tmp_path / "source")
    block = volume.read(0, 4)
    before = [dict(header.items()) for header in block.headers]
    derive_series([Denoised(block, smoothed(block))], volume, STUDENT, tmp_path / "derived")
    assert [dict(header.items()) for header in block.headers] == before


def test_a_repeat_replaces_the_series_and_leaves_nothing_else(tmp_path: Path) -> None:
    make_series(tmp_path / "source")
    series = derive(tmp_path / "source").series
    (series.folder / "stale.dcm").write_bytes(b"")
    derive(tmp_path / "source")
    assert sorted(path.name for path in (tmp_path / "derived").iterdir()) == [
        series.series_instance_uid
    ]
    assert not (series.folder / "stale.dcm").exists()


# Refusals (W7, W12, S2)


def refusal(tmp_path: Path, denoise: object, **source: object) -> StillscanError:
    """The error for which this denoiser's result is refused; nothing may be left of it."""
    make_series(tmp_path / "source", **source)  # type: ignore[arg-type]
    with pytest.raises(StillscanError) as caught:
        derive(tmp_path / "source", denoise)  # type: ignore[arg-type]
    assert list((tmp_path / "derived").iterdir()) == []
    return caught.value


def test_more_than_one_in_a_thousand_clipped_is_refused(tmp_path: Path) -> None:
    def burn(block: VolumeBlock) -> np.ndarray:
        pixels = smoothed(block)
        pixels[:, 0, :5] += 1e6  # 5 of 4096
        pixels[:, 1, :5] -= 1e6
        return pixels

    error = refusal(tmp_path, burn)
    assert isinstance(error, ClippedPixelsError)
    assert error.reason == "pixels-clipped"


def test_a_few_clipped_pixels_are_counted(tmp_path: Path) -> None:
    def burn(block: VolumeBlock) -> np.ndarray:
        pixels = smoothed(block)
        pixels[:, 0, 0] += 1e6
        return pixels

    make_series(tmp_path / "source")
    assert derive(tmp_path / "source", burn).series.clipped_share == pytest.approx(1 / 4096)


@pytest.mark.parametrize(
    ("modality", "shift", "refused"),
    [("CT", 1.9, False), ("CT", 2.1, True), ("MR", 0.004, False), ("MR", 0.006, True)],
)
def test_a_mean_that_moved_is_refused(
    modality: str, shift: float, refused: bool, tmp_path: Path
) -> None:
    make_series(tmp_path / "source", modality=modality, slices=3, bits_stored=14)
    (volume,) = volumes_in(tmp_path / "source")
    pixels = volume.read(0, 3).pixels
    low, high = np.percentile(pixels, (0.5, 99.5))
    added = shift if modality == "CT" else shift * (high - low)

    def brighten(block: VolumeBlock) -> np.ndarray:
        result = smoothed(block)
        if block.is_last:  # one slice is enough
            result[-1] += added
        return result

    if refused:
        with pytest.raises(MeanMovedError, match="slice 3"):
            derive(tmp_path / "source", brighten)
    else:
        assert derive(tmp_path / "source", brighten).series.mean_shift == pytest.approx(
            added, rel=0.1
        )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_pixel_that_is_no_number_is_refused(value: float, tmp_path: Path) -> None:
    def break_last(block: VolumeBlock) -> np.ndarray:
        pixels = smoothed(block)
        pixels[-1, -1, -1] = value
        return pixels

    assert isinstance(refusal(tmp_path, break_last), NotFinitePixelsError)


def test_a_copy_is_not_labelled_as_denoised(tmp_path: Path) -> None:
    error = refusal(tmp_path, unchanged)
    assert isinstance(error, NothingChangedError)
    assert error.exit_code == ExitCode.BAD_INPUT


def test_a_series_with_a_missing_slice_is_refused(tmp_path: Path) -> None:
    make_series(tmp_path / "source", slices=7)
    (volume,) = volumes_in(tmp_path / "source")
    blocks = [Denoised(block, smoothed(block)) for block in blocks_of(volume)]
    for wrong in (blocks[:-1], blocks[1:], blocks[::-1], []):
        with pytest.raises(IncompleteSeriesError):
            derive_series(wrong, volume, STUDENT, tmp_path / "derived")
    assert list((tmp_path / "derived").iterdir()) == []


def test_refusals_of_results_concern_one_series_and_faults_of_the_disk_the_run() -> None:
    assert issubclass(ClippedPixelsError, ResultError)
    assert not issubclass(ResultError, OutputError)
    assert DiskFullError.exit_code == NotWritableError.exit_code == ExitCode.OUTPUT_FAULT


def test_messages_carry_no_patient_data(tmp_path: Path) -> None:
    canary = "CANARY"
    keywords = ("PatientName", "PatientID", "SeriesDescription", "InstitutionName")

    def brighten(block: VolumeBlock) -> np.ndarray:
        return block.pixels + 500

    assert canary not in str(refusal(tmp_path, brighten, **dict.fromkeys(keywords, canary)))
