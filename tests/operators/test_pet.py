"""PET: which series are denoised, and what of the header must stay."""

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEGLosslessSV1

from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import find_series, read_series
from stillscan.operators.reading.selection import SelectionRules
from tests.derived import derive
from tests.series_factory import make_series

KEPT = (
    "Units",
    "DecayCorrection",
    "DecayFactor",
    "DoseCalibrationFactor",
    "CorrectedImage",
    "SeriesDate",
    "SeriesTime",
    "AcquisitionDate",
    "AcquisitionTime",
    "FrameReferenceTime",
    "ActualFrameDuration",
    "RescaleSlope",
    "RescaleIntercept",
    "PatientWeight",
    "AttenuationCorrectionMethod",
)
FDG = (("C-111A1", "^18^Fluorine"), ("77004003", "^18^Fluorine"), ("126752006", "^94m^Technetium"))
SINGLE_PHOTON = (
    ("C-163A8", "^99m^Technetium"),
    ("72454006", "99mTc"),
    ("X", "Technetium Tc^99m^"),
    ("", "Iodine 123"),
)


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as each:
        yield each


def radionuclide(code, name):
    """A RadiopharmaceuticalInformationSequence with one nuclide."""
    nuclide, drug = Dataset(), Dataset()
    nuclide.CodeValue, nuclide.CodeMeaning = code or "0", name
    drug.RadionuclideCodeSequence = [nuclide]
    return {"RadiopharmaceuticalInformationSequence": [drug]}


@pytest.fixture
def reasons(tmp_path, decoder):
    """Reasons for which a PET series with these attributes is not selected."""

    def find(philips=None, **attributes):
        for path in make_series(tmp_path, modality="PT", slices=2, **attributes):
            if philips is not None:
                dataset = pydicom.dcmread(path)
                block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
                block.add_new(philips, "DS", "0.5")
                dataset.save_as(path)
        return {each.reason for each in find_series(tmp_path, decoder, SelectionRules()).refused}

    return find


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"Units": "BQML"}, set()),
        ({"Units": "GML"}, set()),
        ({"Units": "CNTS"}, {"quantitative-map"}),
        ({"Units": "CNTS", "philips": 0x00}, set()),
        ({"Units": "CNTS", "philips": 0x09}, set()),
        ({"Units": "PROPCPS"}, {"quantitative-map"}),
        ({"Units": "CPS"}, {"quantitative-map"}),
        ({"Units": "PROPCNTS"}, {"quantitative-map"}),
        ({"Units": "CM2ML"}, {"quantitative-map"}),
        ({"SeriesType": ["STATIC", "IMAGE"]}, set()),
        ({"SeriesType": ["WHOLE BODY", "IMAGE"]}, set()),
        ({"SeriesType": ["WHOLE BODY", "REPROJECTION"]}, {"reformatted"}),
        ({"ReprojectionMethod": "MAX PIXEL"}, {"reformatted"}),
        ({"SeriesType": ["DYNAMIC", "IMAGE"]}, {"dynamic-series"}),
        ({"SeriesType": ["GATED", "IMAGE"]}, {"dynamic-series"}),
        ({"Manufacturer": "SIEMENS NM"}, {"single-photon"}),
        ({"Manufacturer": "SIEMENS"}, set()),
        *((radionuclide(*each), set()) for each in FDG),
        *((radionuclide(*each), {"single-photon"}) for each in SINGLE_PHOTON),
    ],
)
def test_what_is_denoised(attributes, expected, reasons):
    assert reasons(**attributes) == expected


def read_one(folder, decoder):
    """Read the only series of a folder."""
    (candidate,) = find_series(folder, decoder, SelectionRules()).candidates
    return read_series(candidate, decoder)


def test_beds_with_times_of_their_own_stay_one_series(tmp_path, decoder):
    for number, path in enumerate(make_series(tmp_path, modality="PT", slices=6)):
        dataset = pydicom.dcmread(path)
        dataset.SeriesType = ["WHOLE BODY", "IMAGE"]
        dataset.FrameReferenceTime = 1000.0 * (number // 2)
        dataset.NumberOfTimeSlices = 3  # GE counts beds
        dataset.save_as(path)
    volume = read_one(tmp_path, decoder)
    assert len(volume.slices) == 6
    assert len({each.place for each in volume.slices}) == 6  # none is a repeat of another


def test_what_uptake_is_computed_from_stays(tmp_path):
    for path in make_series(tmp_path / "source", modality="PT", slices=2, per_slice_slope=True):
        dataset = pydicom.dcmread(path)
        dataset.DecayFactor, dataset.DoseCalibrationFactor = 1.0625, 24012000.0
        dataset.CorrectedImage = ["DECY", "ATTN", "SCAT", "RAN"]
        ge = dataset.private_block(0x0009, "GEMS_PETD_01", create=True)
        ge.add_new(0x0D, "DT", "20200131120000")
        ge.add_new(0x0E, "LO", "secret")
        siemens = dataset.private_block(0x0071, "SIEMENS MED PT", create=True)
        siemens.add_new(0x22, "DT", "20200131121500")
        dataset.save_as(path)
    for source, derived in derive(tmp_path / "source").pairs:
        for keyword in KEPT:
            assert derived.get(keyword) == source.get(keyword), keyword
        assert derived[0x0009100D].value == "20200131120000"
        assert derived[0x00711022].value == "20200131121500"
        assert 0x0009100E not in derived


@pytest.mark.parametrize("end", [b"", b" ", b"\0", b"\0\0"])
def test_a_byte_after_the_end_of_a_jpeg_is_padding(end, tmp_path, decoder):
    (path,) = make_series(tmp_path, modality="PT", slices=1, transfer_syntax=JPEGLosslessSV1)
    dataset = pydicom.dcmread(path)
    expected = dataset.pixel_array
    (stream,) = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([stream.rstrip(b"\0") + end])
    dataset.save_as(path)
    block = read_one(tmp_path, decoder).read(0, 1)
    np.testing.assert_array_equal(block.stored[0], expected)


def test_a_real_ge_slice_in_padded_jpeg_is_read(stillscan_data, decoder):
    folder = stillscan_data / "pet" / "dicom" / "pet_ge_st_jpegll_one_slice"
    block = read_one(folder, decoder).read(0, 1)
    assert block.stored.shape == (1, 128, 128)
    assert np.ptp(block.stored) > 0
