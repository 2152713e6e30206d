"""Every input syntax: the pixels of the uncompressed twin, or a refusal with a code."""

import base64
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames

from stillscan.operators.errors import CorruptPixelDataError, PixelDataLengthError
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import Catalogue, find_series, read_series
from stillscan.operators.reading.selection import SelectionRules
from tests.enhanced_factory import make_enhanced
from tests.series_factory import make_series, phantom

LOSSY_TOO = SelectionRules(lossy="process", maps="process")
SAME = "the pixels of the uncompressed twin"
# file of ct_chest_transfer_syntaxes: what becomes of it by default, and where lossy images may pass
SYNTAXES = {
    "CTImage.dcm": (SAME, SAME),
    "CTImage.dcm_BigEndianExplicitTransferSyntax_1.2.840.10008.1.2.2.dcm": (SAME, SAME),
    "CTImage.dcm_DeflatedExplicitVRLittleEndianTransferSyntax_1.2.840.10008.1.2.1.99.dcm": (
        (SAME, SAME)
    ),
    "CTImage.dcm_LittleEndianExplicitTransferSyntax_1.2.840.10008.1.2.1.dcm": (SAME, SAME),
    "CTImage.dcm_JPEG2000LosslessOnlyTransferSyntax_1.2.840.10008.1.2.4.90.dcm": (SAME, SAME),
    "CTImage.dcm_JPEGLSLosslessTransferSyntax_1.2.840.10008.1.2.4.80.dcm": (SAME, SAME),
    "CTImage.dcm_JPEGProcess14SV1TransferSyntax_1.2.840.10008.1.2.4.70.dcm": (SAME, SAME),
    "CTImage.dcm_JPEGProcess14TransferSyntax_1.2.840.10008.1.2.4.57.dcm": (SAME, SAME),
    "CTImage.dcm_RLELosslessTransferSyntax_1.2.840.10008.1.2.5.dcm": (SAME, SAME),
    # a deviation that may be: in stored values, from the uncompressed twin
    "CTImage.dcm_JPEG2000TransferSyntax_1.2.840.10008.1.2.4.91.dcm": ("lossy-compression", 8),
    "CTImage.dcm_JPEGLSLossyTransferSyntax_1.2.840.10008.1.2.4.81.dcm": ("lossy-compression", 2),
    # 8 bits of the 16 of its twin
    "CTImage.dcm_JPEGProcess1TransferSyntax_1.2.840.10008.1.2.4.50.dcm": (
        "lossy-compression",
        None,
    ),
    "CTImage.dcm_JPEGProcess10_12TransferSyntax_1.2.840.10008.1.2.4.55.dcm": (
        ("lossy-compression", "unsupported-compression")
    ),
    "CTImage.dcm_JPEGProcess6_8TransferSyntax_1.2.840.10008.1.2.4.53.dcm": (
        ("lossy-compression", "unsupported-compression")
    ),
    "CT0012.fragmented_no_bot_jpeg_baseline.51.dcm": (
        ("lossy-compression", "unsupported-compression")
    ),
}
HTJ2K = base64.b64decode(  # OpenJPH's encoding of `phantom(16, 12, 0, False, 12, 0)`
    b"/0//UQApQAAAAAAMAAAAEAAAAAAAAAAAAAAADAAAABAAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUE"
    b"BEAB/1wAEyCIkJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAYAAAf+TwAAm"
    b"DfUFB3QAAMAAEsAAEsAAEoD+Aod0AJ4Ch3QAEAKHdADAABPAABVQAATgSMbJAwt0ALL6lDkS+gDClABgOM0DA3QA"
    b"wAAWvAABa0AAFrhjRkhzjA4Kr9ZbmEYVDLAkP/RBgb6XAI3WQzbkYIIiTFUhGcNk+g2aMcC/lwA/+8PbqUg+juqx"
    b"fljjxosJZlwjAXi4AMAAL0iAAF6LAAC9FECe0s8u57fCeJ3jRGPw0tnVrN3mG3wXYBCPNAp7LJYrhBGxxGj84lYO"
    b"VTiIQqp72aHPqAW6E+klUf4AijGjAeUghIMEABGeADmdkTWvAjgFWsU7lyUNBhFCBKALUeZIGnhdmyrg0hoiGfgh"
    b"HSp+3CFvByiw2AApMyVyYmU0+gSljIpSLhQWcgAQQNM/AChBdYXg2rh1PsLjkGBoUJxVFrTU5W25gKeHCYDYwA3B"
    b"3gLY9klEuSlhRSF7cVfjnBRgOj040eoFCScxFGMDRRghgNeeAP/Z"
)


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as running:
        yield running


def stored_values(catalogue: Catalogue, decoder: Decoder) -> np.ndarray:
    (candidate,) = catalogue.candidates
    volume = read_series(candidate, decoder)
    return volume.read(0, len(volume.slices)).stored


def with_stream(path: Path, syntax: str, frames: list[bytes]) -> Path:
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    return path


@pytest.mark.data
@pytest.mark.parametrize("lossy_too", [False, True])
@pytest.mark.parametrize("name", SYNTAXES)
def test_real_image_in_every_syntax(name, lossy_too, decoder, stillscan_data):
    folder = stillscan_data / "dev" / "dicom" / "ct_chest_transfer_syntaxes"
    expected = SYNTAXES[name][lossy_too]
    rules = LOSSY_TOO if lossy_too else SelectionRules()
    found = find_series(folder / name, decoder, rules)
    if isinstance(expected, str) and expected != SAME:
        assert [each.reason for each in found.refused] == [expected]
        return
    twin = pydicom.dcmread(folder / "CTImage.dcm").pixel_array.astype(int)
    (stored,) = stored_values(found, decoder)
    if expected is None:
        assert np.array_equal(stored, pydicom.dcmread(folder / name).pixel_array)
    else:
        assert np.abs(stored - twin).max() <= (0 if expected == SAME else expected)


@pytest.mark.data
def test_table_knows_every_file(stillscan_data):
    folder = stillscan_data / "dev" / "dicom" / "ct_chest_transfer_syntaxes"
    assert {path.name for path in folder.iterdir()} == set(SYNTAXES)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202"])
def test_high_throughput_jpeg_2000_is_exact(syntax, decoder, tmp_path):
    (path,) = make_series(tmp_path, slices=1, rows=16, columns=12)
    with_stream(path, syntax, [HTJ2K])
    stored = stored_values(find_series(path, decoder, SelectionRules(min_matrix=8)), decoder)
    assert np.array_equal(stored[0], phantom(16, 12, 0, False, 12, 0))


@pytest.mark.parametrize("bits_stored", [8, 12])
def test_encapsulated_uncompressed_is_exact(bits_stored, decoder, tmp_path):
    (path,) = make_series(
        tmp_path, modality="CR", slices=1, rows=35, columns=37, bits_stored=bits_stored
    )
    expected = pydicom.dcmread(path).pixel_array
    with_stream(path, "1.2.840.10008.1.2.1.98", [expected.tobytes()])
    (stored,) = stored_values(find_series(path, decoder, SelectionRules()), decoder)
    assert np.array_equal(stored, expected)
    with_stream(path, "1.2.840.10008.1.2.1.98", [expected.tobytes()[:-9]])
    with pytest.raises(PixelDataLengthError, match="found a frame of"):
        stored_values(find_series(path, decoder, SelectionRules()), decoder)


def test_encapsulated_uncompressed_frames_are_exact(decoder, tmp_path):
    (path,) = make_enhanced(tmp_path, frames=3)
    expected = pydicom.dcmread(path).pixel_array
    with_stream(path, "1.2.840.10008.1.2.1.98", [frame.tobytes() for frame in expected])
    assert np.array_equal(
        stored_values(find_series(path, decoder, SelectionRules()), decoder), expected
    )


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"])
def test_lossy_jpeg_in_a_lossless_syntax_is_refused(syntax, decoder, tmp_path):
    (path,) = make_series(tmp_path, slices=1, transfer_syntax=syntax)
    stream = bytearray(next(generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=1)))

    stream[stream.index(b"\xff\xc3") + 1] = 0xC1  # extended sequential DCT
    with_stream(path, syntax, [bytes(stream)])
    with pytest.raises(CorruptPixelDataError, match="lossy stream in a lossless"):
        stored_values(find_series(path, decoder, SelectionRules()), decoder)
