"""The label app gives the pixels of `stillscan denoise`, whatever door the image came through."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pydicom
import pytest

from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.app.library.images import ModalityUnknownError
from stillscan.app.pipeline.pipeline import run
from stillscan.app.pipeline.survey import Job
from stillscan.app.settings import load_settings
from stillscan.deploy.monailabel.denoise_series import denoise_series
from stillscan.deploy.monailabel.dicom_volume import read_volumes
from stillscan.deploy.monailabel.errors import RequestError
from stillscan.deploy.monailabel.networks import MODES, STRENGTHS, Networks, Wish, modality_of
from stillscan.models.bundle import read_info
from stillscan.operators.denoising.gate import GateRefusedError
from stillscan.operators.denoising.gate_limits import GateLimits
from stillscan.operators.errors import InputError
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.selection import SelectionRules
from tests.series_factory import make_series

MR = read_info(DEFAULT_BUNDLES / "mr")


@pytest.fixture(scope="module")
def method():
    return Networks(load_settings()).method(MR, "MR", Wish())


@pytest.fixture
def folder(tmp_path):
    make_series(tmp_path / "in", rows=64, columns=48)
    return tmp_path / "in"


def denoised(folder, method, staging=None):
    with Decoder() as decoder:
        (volume,) = read_volumes(folder, decoder, SelectionRules())
        return denoise_series(volume, method, staging)


def test_pixels_are_floats_between_the_stored_values(folder, method):
    pixels = denoised(folder, method).pixels
    assert pixels.dtype == np.float32
    assert np.abs(pixels - pixels.round()).max() > 0.2


def test_noise_goes_down_and_the_answer_says_so(folder, method):
    facts = denoised(folder, method).facts
    assert 0 < facts["noise_after"] < 0.6 * facts["noise_before"]
    assert facts["verdict"].startswith("accept")
    assert (facts["bundle"], facts["modality"]) == ("mr", "MR")


@pytest.mark.skipif(
    find_spec("holoscan") is None,
    reason="the environment of MONAI Label has no holoscan: `make test` runs this",
)
def test_the_derived_series_is_that_of_the_application(folder, method, tmp_path):
    (tmp_path / "staging").mkdir()
    found = denoised(folder, method, tmp_path / "staging").derived
    result = run(Job(folder, tmp_path / "out", load_settings()))
    (expected,) = [outcome.derived for outcome in result.outcomes]
    assert found.series_instance_uid == expected.series_instance_uid
    ours = sorted(found.folder.glob("*.dcm"))
    theirs = sorted((tmp_path / "out" / found.series_instance_uid).glob("*.dcm"))
    assert [path.name for path in ours] == [path.name for path in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert np.array_equal(pydicom.dcmread(one).pixel_array, pydicom.dcmread(other).pixel_array)


def test_the_gate_refuses_here_as_well(folder):
    strict = load_settings()
    method = Networks(strict).method(MR, "MR", Wish())
    none_may_change = replace(method, limits=GateLimits(residual_deviation=1e-6))
    with pytest.raises(GateRefusedError):
        denoised(folder, none_may_change)


def test_a_network_is_loaded_once_for_all_strengths():
    networks = Networks(load_settings())
    whole, half = (networks.method(MR, "MR", Wish(strength)) for strength in (1.0, 0.5))
    assert whole.denoiser is half.denoiser
    assert (whole.strength, half.strength, half.provenance.strength) == (1.0, 0.5, 0.5)


def test_a_bundle_denoises_no_modality_that_it_never_saw():
    with pytest.raises(InputError) as refused:
        Networks(load_settings()).method(MR, "CT", Wish())
    assert refused.value.reason == "no-bundle-for-modality"


def test_a_client_that_does_not_choose_gets_the_first():
    assert Wish.of({"strength": list(STRENGTHS), "mode": list(MODES)}) == Wish()
    assert Wish.of({"strength": "low", "device": "cuda:1"}) == Wish(0.5, device="cuda")
    assert Wish.of({"strength": "0.3"}) == Wish.of({"strength": 0.3}) == Wish(0.3)


def test_a_value_that_does_not_exist_is_refused_by_its_name():
    with pytest.raises(RequestError, match="strength is 'max', expected one of high, medium, low"):
        Wish.of({"strength": "max"})
    with pytest.raises(RequestError, match="strength is 7"):
        Wish.of({"strength": 7})


def test_a_file_has_the_modality_that_request_or_model_say():
    assert modality_of({"modality": "ct"}, MR) == "CT"
    assert modality_of({}, MR) == "MR"
    with pytest.raises(ModalityUnknownError, match="stillscan_mr"):
        modality_of({}, None)
