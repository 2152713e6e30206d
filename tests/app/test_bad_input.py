"""Every bad input through the real command: a message, an exit code, nothing half-written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stillscan.app.cli import app
from tests.bad_inputs import SECONDS, processor_seconds

BYTES = 1.5e9

# file or folder: (exit code, derived series, what the message says)
CASES: dict[str, tuple[int, int, str]] = {
    "f01_empty_file.dcm": (3, 0, "empty-file"),
    "f02_text_renamed.dcm": (3, 0, "not-dicom"),
    "f03_truncated_pixels.dcm": (4, 0, "truncated-file: .*5000 bytes"),
    "f04_truncated_header.dcm": (4, 0, "truncated-file"),
    "f05_random_bytes.dcm": (4, 0, "truncated-file|damaged-file"),
    "f06_mz_preamble.dcm": (0, 1, ""),
    "f07_no_preamble_no_meta.dcm": (0, 1, ""),
    "h01_huge_dims_tiny_pixels.dcm": (4, 0, "pixel-data-length"),
    "h02_huge_frames.dcm": (4, 0, "pixel-data-length"),
    "h03_zero_dims.dcm": (4, 0, "Rows: found 0"),
    "h04_deflate_bomb_128MB.dcm": (4, 0, "frame-too-large"),
    "h05_nested_sequences_60.dcm": (4, 0, "nested-too-deep"),
    "h05b_nested_sequences_2000.dcm": (4, 0, "nested-too-deep"),
    "h06_too_much_pixeldata.dcm": (4, 0, "PixelData: found 9194 bytes"),
    "h07_bits_mismatch.dcm": (4, 0, "invalid-bit-depth"),
    "h08_rescale_slope_zero.dcm": (4, 0, "RescaleSlope: found 0"),
    "h09_rescale_slope_text.dcm": (4, 0, "RescaleSlope: found 'NA'"),
    "h10_constant_image.dcm": (4, 0, "no-noise"),
    "h11_one_pixel.dcm": (3, 0, "too-few-pixels"),
    "h12_odd_size_67x61.dcm": (0, 1, ""),
    "h13_no_geometry.dcm": (0, 1, "no geometry"),
    "h14_no_series_uid.dcm": (4, 0, "SeriesInstanceUID is missing"),
    "h15_path_traversal_strings.dcm": (0, 1, ""),
    "h16_unknown_transfer_syntax.dcm": (4, 0, "unknown-transfer-syntax"),
    "h17_mpeg4.dcm": (4, 0, "unsupported-compression"),
    "h18_corrupt_j2k_stream.dcm": (4, 0, "unused-bits-set"),
    "h19_float_pixels.dcm": (4, 0, "float-pixels|BitsAllocated: found 32"),
    "h20_no_pixeldata.dcm": (4, 0, "PixelData is missing"),
    "h21_rgb.dcm": (3, 0, "colour"),
    "h22_signed_padding_fraction.dcm": (0, 1, ""),
    "h23_burned_in_flag.dcm": (3, 0, "burned-in-annotation"),
    "h24_already_derived.dcm": (3, 0, "lossy-compression|already-denoised"),
    "h25_bad_charset.dcm": (0, 1, ""),
    "h26_real_j2k_too_short.dcm": (4, 0, "truncated-file"),
    "n01_rtstruct.dcm": (3, 0, "RT Structure Set Storage"),
    "n02_rtplan.dcm": (3, 0, "RT Plan Storage"),
    "n03_sr.dcm": (3, 0, "Basic Text SR Storage"),
    "n04_rtdose.dcm": (3, 0, "RT Dose Storage"),
    "n05_ecg_waveform.dcm": (3, 0, "12-lead ECG Waveform Storage"),
    "n06_DICOMDIR": (3, 0, "dicomdir"),
    "n07_presentation_state.dcm": (3, 0, "Presentation State Storage"),
    "n08_segmentation.dcm": (3, 0, "Segmentation Storage"),
    "s01_duplicate_sop": (0, 1, "is a copy of"),
    "s02_same_position_twice": (0, 1, "position"),
    "s03_missing_slices": (0, 1, "02.dcm.*05.dcm"),
    "s04_mixed_matrix": (4, 0, "mixed-matrix: .*64 and 48"),
    "s05_two_series_two_patients": (0, 2, ""),
    "s06_one_series_two_patient_ids": (4, 0, "identity-conflict: .*PatientID"),
    "s07_empty_folder": (3, 0, "nothing to do"),
    "s08_mixed_orientation": (0, 1, "2 stacks or orientations"),
    "s09_slope_differs": (0, 1, ""),
    "s10_mixed_mono1_mono2": (4, 0, "mixed-photometric"),
    "s11_image_plus_junk": (0, 1, "skipped notes.txt: not-dicom"),
}
# what could cost memory or time, through the real command in a process of its own
COSTLY = (
    "f05_random_bytes.dcm",
    "h01_huge_dims_tiny_pixels.dcm",
    "h02_huge_frames.dcm",
    "h04_deflate_bomb_128MB.dcm",
    "h05b_nested_sequences_2000.dcm",
    "h12_odd_size_67x61.dcm",
)


def test_every_bad_input_is_in_the_table(stillscan_data: Path) -> None:
    names = {path.name for path in (stillscan_data / "bad").iterdir()}
    assert names - {"README.md", "bad.json"} == set(CASES)


@pytest.mark.data
@pytest.mark.parametrize("name", CASES)
def test_bad_input(name: str, stillscan_data: Path, tmp_path: Path) -> None:
    code, derived, said = CASES[name]
    source, out = stillscan_data / "bad" / name, tmp_path / "out"
    before = processor_seconds()
    result = CliRunner().invoke(app, ["denoise", str(source), str(out), "--mode", "identity"])
    seconds = processor_seconds() - before
    assert result.exit_code == code, result.output
    assert re.search(said, result.stderr)
    assert "Traceback" not in result.output
    assert seconds < SECONDS
    folders = sorted(path.name for path in out.iterdir())
    if derived:
        assert len(folders) == derived + 1
        assert folders[-1] == "report"
        assert all(re.fullmatch(r"2\.25\.\d+", each) for each in folders[:-1])
    else:
        assert folders == []
        assert any(path.name in result.stderr for path in (source, *source.rglob("*")))


# A process begins with the peak of the one that started it, so a small one starts the command, and
# says what the largest of its processes held and how much processor time they took together.
MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_maxrss, used.ru_utime + used.ru_stime)
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", COSTLY)
def test_bad_input_costs_little(name: str, stillscan_data: Path, tmp_path: Path) -> None:
    source, out = stillscan_data / "bad" / name, tmp_path / "out"
    command = [sys.executable, "-c", "from stillscan.app.cli import main; main()"]
    command += ["denoise", str(source), str(out), "--mode", "identity"]
    done = subprocess.run(
        [sys.executable, "-S", "-c", MEASURED, *command],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=30 * SECONDS,
    )
    assert done.returncode == CASES[name][0], done.stderr
    kilobytes, seconds = done.stdout.split()
    assert float(seconds) < SECONDS
    assert int(kilobytes) * 1024 < BYTES
    assert "Traceback" not in done.stderr
