"""Measurements: what is known in closed form is measured as that."""

import numpy as np
import pytest
import torch

from stillscan.app.datasets.repeated_scans import Repeat, repeats, with_structure
from stillscan.app.evaluation.images import ReferenceSeries, middle_of
from stillscan.app.evaluation.measurements import make_trial, measure_repeat, measure_simulated
from stillscan.app.evaluation.methods import Method, always
from stillscan.app.evaluation.noise_cases import noise_case
from stillscan.app.evaluation.peers import SliceBySlice
from stillscan.models.denoisers.denoiser import Estimate, IdentityDenoiser
from stillscan.models.training.dead_leaves import dead_leaves

SUBJECT = ReferenceSeries(
    "one", "one", "mr", torch.from_numpy(dead_leaves(128, np.random.default_rng(0)))[None]
)
NOISY = Method("noisy", "nothing", always(IdentityDenoiser()), alone=True)


class Oracle:
    """Knows the truth, and says how far it is off."""

    def denoise(self, image, noise):
        return Estimate(SUBJECT.slices[None] + 0.01, torch.full_like(image, 0.02))


def test_the_noisy_image_has_the_figures_of_its_noise():
    trial = make_trial(SUBJECT, noise_case("gaussian 15"), with_lesions=True)
    record = measure_simulated(trial, NOISY)
    (row,) = record["slices"]
    assert row["psnr"] == pytest.approx(24.6, abs=0.1)
    assert row["error_noise_correlation"] == pytest.approx(1, abs=1e-4)
    assert row["mean_frequency_shift"] == pytest.approx(0, abs=1e-6)
    assert all(each["share"] == pytest.approx(1, abs=1e-3) for each in record["lesions"])
    assert "within_one" not in row


def test_stated_deviations_are_held_against_the_error():
    trial = make_trial(SUBJECT, noise_case("gaussian 15"), with_lesions=False)
    oracle = Method("oracle", "truth", always(Oracle()))
    record = measure_simulated(trial, oracle)
    (row,) = record["slices"]
    assert row["psnr"] == pytest.approx(40, abs=0.01)
    assert row["within_one"] == row["within_two"] == 1
    assert record["lesions"] == []


def test_noise_and_lesions_depend_on_subject_slice_and_noise_alone():
    case = noise_case("correlated 1.2 px 15")
    first, again = (make_trial(SUBJECT, case, with_lesions=True) for _ in range(2))
    other = make_trial(ReferenceSeries("two", "two", "mr", SUBJECT.slices), case, with_lesions=True)
    assert torch.equal(first.noisy, again.noisy)
    assert [each.row for each in first.lesions[0]] == [each.row for each in again.lesions[0]]
    assert not torch.equal(first.noisy, other.noisy)


def test_the_middle_is_that_of_the_middle_slice():
    slices = torch.arange(3.0)[:, None, None] + torch.zeros(3, 100, 60)
    middle = middle_of(ReferenceSeries("one", "one", "mr", slices), 64).slices
    assert middle.shape == (1, 64, 60)
    assert (middle == 1).all()


def test_half_of_the_difference_of_two_acquisitions_is_noise_of_one():
    """The truth itself gains all; one that takes half of the noise gains 6 dB."""
    rng = np.random.default_rng(0)
    clean = 500 * dead_leaves(256, rng)[None] + 500
    first, second = (clean + 20 * rng.standard_normal(clean.shape) for _ in range(2))
    repeat = Repeat("pair", first.astype(np.float32), second.astype(np.float32))
    scale = np.quantile(repeat.first, 0.999)

    def halved(image):
        return ((image * scale + clean[0]) / 2 / scale).astype(np.float32)

    half = Method("half", "nothing", always(SliceBySlice(halved)), alone=True)
    (noisy,), (better,) = (measure_repeat(repeat, each)["slices"] for each in (NOISY, half))
    assert noisy["before"] == noisy["after"] == pytest.approx(20 * np.sqrt(2), rel=0.02)
    assert noisy["gain"] == pytest.approx(0, abs=0.05)
    assert better["gain"] == pytest.approx(6, abs=0.3)


def test_a_scan_of_several_volumes_holds_its_slices_again():
    volumes = np.zeros((6, 8, 8), np.float32)
    assert Repeat("two slices, three times", volumes, volumes, 3).places == ((0,), (1,)) * 3
    assert Repeat("six slices", volumes, volumes).places == tuple((index,) for index in range(6))


@pytest.mark.data
def test_repeated_scans_are_pairs_of_the_same_slices(stillscan_data):
    found = list(repeats(stillscan_data / "dev"))
    assert len({repeat.name for repeat in found}) == 8
    for repeat in found:
        assert repeat.first.shape == repeat.second.shape
        assert with_structure(repeat.first)
        correlation = np.corrcoef(repeat.first.ravel(), repeat.second.ravel())[0, 1]
        assert correlation > 0.85, repeat.name
