"""What becomes of each of the bad inputs of STILLSCAN_DATA/bad when it is read.

    case = BAD_INPUTS["s04_mixed_matrix"]
    case.outcome, case.reason     # "refused", "mixed-matrix"

What the whole application says of them is in tests/app/test_bad_input.py.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["processed", "refused", "not-selected", "skipped"]
SECONDS = 10  # of processor time that a bad input may take


def processor_seconds() -> float:
    """What this process and its children that have ended took: no matter of a busy machine."""
    return sum(os.times()[:4])


@dataclass(frozen=True)
class BadInput:
    """What reading one bad input leads to.

    Attributes:
        outcome: `refused` (something is wrong with it), `not-selected` (by the rules), `skipped`
            (no image), or `processed`.
        reason: the stable code, empty where it is processed.
        slices: of each series that is processed.
        warned: part of the warning that a processed series must carry.
    """

    outcome: Outcome
    reason: str = ""
    slices: tuple[int, ...] = ()
    warned: str = ""


def _refused(reason: str) -> BadInput:
    return BadInput("refused", reason)


def _processed(*slices: int, warned: str = "") -> BadInput:
    return BadInput("processed", slices=slices, warned=warned)


_NOT_AN_IMAGE = BadInput("skipped", "not-an-image")

BAD_INPUTS = {
    "f01_empty_file.dcm": BadInput("skipped", "empty-file"),
    "f02_text_renamed.dcm": BadInput("skipped", "not-dicom"),
    "f03_truncated_pixels.dcm": _refused("truncated-file"),
    "f04_truncated_header.dcm": _refused("truncated-file"),
    "f05_random_bytes.dcm": _refused("truncated-file"),
    "f06_mz_preamble.dcm": _processed(1),
    "f07_no_preamble_no_meta.dcm": _processed(1),
    "h01_huge_dims_tiny_pixels.dcm": _refused("pixel-data-length"),
    "h02_huge_frames.dcm": _refused("pixel-data-length"),
    "h03_zero_dims.dcm": _refused("invalid-attribute"),
    "h04_deflate_bomb_128MB.dcm": _refused("frame-too-large"),
    "h05_nested_sequences_60.dcm": _refused("nested-too-deep"),
    "h05b_nested_sequences_2000.dcm": _refused("nested-too-deep"),
    "h06_too_much_pixeldata.dcm": _refused("pixel-data-length"),
    "h07_bits_mismatch.dcm": _refused("invalid-bit-depth"),
    "h08_rescale_slope_zero.dcm": _refused("invalid-rescale"),
    "h09_rescale_slope_text.dcm": _refused("invalid-rescale"),
    "h10_constant_image.dcm": _processed(1),  # read, and refused by the noise estimate: no-noise
    "h11_one_pixel.dcm": BadInput("not-selected", "too-few-pixels"),
    "h12_odd_size_67x61.dcm": _processed(1),
    "h13_no_geometry.dcm": _processed(1, warned="no geometry"),
    "h14_no_series_uid.dcm": _refused("missing-uid"),
    "h15_path_traversal_strings.dcm": _processed(1),
    "h16_unknown_transfer_syntax.dcm": _refused("unknown-transfer-syntax"),
    "h17_mpeg4.dcm": _refused("unsupported-compression"),
    "h18_corrupt_j2k_stream.dcm": _refused("unused-bits-set"),
    "h19_float_pixels.dcm": _refused("float-pixels-not-supported"),
    "h20_no_pixeldata.dcm": _refused("no-pixel-data"),
    "h21_rgb.dcm": BadInput("not-selected", "colour"),
    "h22_signed_padding_fraction.dcm": _processed(1),
    "h23_burned_in_flag.dcm": BadInput("not-selected", "burned-in-annotation"),
    "h24_already_derived.dcm": BadInput("not-selected", "lossy-compression"),
    "h25_bad_charset.dcm": _processed(1),
    "h26_real_j2k_too_short.dcm": _refused("truncated-file"),
    "n01_rtstruct.dcm": _NOT_AN_IMAGE,
    "n02_rtplan.dcm": _NOT_AN_IMAGE,
    "n03_sr.dcm": _NOT_AN_IMAGE,
    "n04_rtdose.dcm": _NOT_AN_IMAGE,
    "n05_ecg_waveform.dcm": _NOT_AN_IMAGE,
    "n06_DICOMDIR": BadInput("skipped", "dicomdir"),
    "n07_presentation_state.dcm": _NOT_AN_IMAGE,
    "n08_segmentation.dcm": _NOT_AN_IMAGE,
    "s01_duplicate_sop": _processed(6, warned="02_copy.dcm is a copy of 02.dcm"),
    "s02_same_position_twice": _processed(7, warned="images at positions of others: 1"),
    "s03_missing_slices": _processed(5, warned="from 02.dcm to 05.dcm, 3 mm"),
    "s04_mixed_matrix": _refused("mixed-matrix"),
    "s05_two_series_two_patients": _processed(3, 3),
    "s06_one_series_two_patient_ids": _refused("identity-conflict"),
    "s07_empty_folder": BadInput("skipped", "empty-file"),  # its .keep
    "s08_mixed_orientation": _processed(4, warned="2 stacks or orientations"),
    "s09_slope_differs": _processed(4),
    "s10_mixed_mono1_mono2": _refused("mixed-photometric"),
    "s11_image_plus_junk": _processed(5, warned="from 02.dcm to 05.dcm"),
}
