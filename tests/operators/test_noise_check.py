"""The noise level against independent measurements: a level that is wrong never goes silent."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from stillscan.models.denoisers.denoiser import Estimate
from stillscan.models.noise import synthesis
from stillscan.models.noise.estimation import estimate_noise_profile
from stillscan.models.noise.profile import Witness
from stillscan.models.training.dead_leaves import dead_leaves
from stillscan.operators.array_volume import array_volume
from stillscan.operators.denoising.denoise_series import denoise_block, plan_series
from stillscan.operators.denoising.gate import GateRefusedError
from stillscan.operators.denoising.intensity import Scaling
from stillscan.operators.denoising.noise_check import ONE_WITNESS_SHARE, NoiseCheck
from stillscan.operators.errors import NoiseNotMeasuredError, NoSignalError

SIGMA = 6 / 255
SCALE = Scaling(0.0, 1.0)


class Blurs:
    """Takes away whatever it is told is noise: a Gaussian that is wider for a higher level."""

    def denoise(self, image, noise):
        clean = image
        for _ in range(round(noise.sigma / SIGMA * 4)):
            clean = torch.nn.functional.avg_pool2d(
                torch.nn.functional.pad(clean, (1, 1, 1, 1), mode="replicate"), 3, 1
            )
        return Estimate(clean)


@pytest.fixture(scope="module")
def series():
    rng = np.random.default_rng(7)
    generator = torch.Generator().manual_seed(1)
    clean = torch.stack([torch.from_numpy(dead_leaves(192, rng)) for _ in range(3)])
    noisy = torch.stack([synthesis.add_gaussian(each, SIGMA, generator) for each in clean])
    return clean.numpy(), array_volume(noisy.numpy(), "MR", [None] * 3)


def error_of(pixels, clean):
    return float(np.square(pixels - clean).mean() ** 0.5)


@pytest.mark.parametrize("factor", [0.5, 2.0, 2.8])
def test_a_wrong_level_is_told_and_never_makes_the_image_worse(series, factor):
    clean, volume = series
    right = plan_series(volume, Blurs(), scaling=SCALE)[1].noise
    volume, plan = plan_series(volume, Blurs(), scaling=SCALE, noise=right.weakened(factor))
    assert "independent measurement" in plan.warnings[0]
    for block in volume.blocks():
        shown = denoise_block(Blurs(), block, plan).pixels
        reference = clean[block.start : block.stop]
        assert error_of(shown, reference) < 1.01 * error_of(block.pixels, reference)


def test_a_level_that_is_far_too_high_is_refused(series):
    _, volume = series
    right = plan_series(volume, Blurs(), scaling=SCALE)[1].noise
    with pytest.raises(GateRefusedError, match="independent measurement"):
        plan_series(volume, Blurs(), scaling=SCALE, noise=right.weakened(5.0))


def test_a_right_level_draws_nothing_back(series):
    _, volume = series
    _, plan = plan_series(volume, Blurs(), scaling=SCALE)
    assert plan.noise_check.bound is None
    assert plan.confirmed_share == 1
    assert plan.warnings == ()


def test_one_measurement_alone_is_acted_on_at_less_strength():
    noisy = synthesis.add_gaussian(
        torch.full((64, 64), 0.5), 0.05, torch.Generator().manual_seed(0)
    )
    profile = estimate_noise_profile([noisy])
    check = NoiseCheck.of(replace(profile, certainty="one witness"))
    assert check.share == ONE_WITNESS_SHARE
    assert "only one measurement" in check.warning


def test_an_unproven_witness_does_not_refute():
    noisy = synthesis.add_gaussian(
        torch.full((64, 64), 0.5), 0.05, torch.Generator().manual_seed(0)
    )
    profile = estimate_noise_profile([noisy])
    low = Witness("middle frequencies", 0.2 * profile.sigma, proven=False)
    assert NoiseCheck.of(replace(profile, witnesses=(*profile.witnesses, low))).bound is None


def test_a_series_whose_noise_cannot_be_measured_is_refused():
    rng = np.random.default_rng(3)
    texture = rng.normal(size=(2, 96, 96)).astype(np.float32)
    spectrum = 1 / (0.003 + np.hypot(*np.meshgrid(np.fft.fftfreq(96), np.fft.fftfreq(96)))) ** 3
    smooth = np.fft.ifft2(np.fft.fft2(texture) * spectrum).real
    image = (0.5 + 0.1 * smooth / smooth.std()).astype(np.float32)
    with pytest.raises(NoiseNotMeasuredError):
        plan_series(array_volume(image, "MR", [None] * 2), Blurs(), scaling=SCALE)


def refused_as_noise(images):
    try:
        plan_series(array_volume(images, "MR", [None] * len(images)), Blurs(), scaling=SCALE)
    except NoSignalError:
        return True
    return False


@pytest.mark.parametrize("length", [0.001, 1.2])
@pytest.mark.parametrize(("level", "refused"), [(0.3, True), (0.6, False)])
def test_noise_alone_is_refused_and_an_even_object_is_not(level, length, refused):
    generator = torch.Generator().manual_seed(0)
    flat = torch.full((128, 128), level)
    noisy = torch.stack([synthesis.add_correlated(flat, 0.1, length, generator) for _ in range(2)])
    assert refused_as_noise(noisy.numpy()) == refused


def test_scrambled_pixels_are_refused():
    values = np.random.default_rng(0).uniform(0, 1, (2, 128, 128)).astype(np.float32)
    assert refused_as_noise(values)


def test_a_faint_object_in_noise_is_signal():
    generator = torch.Generator().manual_seed(0)
    flat = torch.full((128, 128), 0.5)
    flat[40:90, 40:90] += 0.05
    noisy = torch.stack([synthesis.add_gaussian(flat, 0.1, generator) for _ in range(2)])
    plan_series(array_volume(noisy.numpy(), "MR", [None] * 2), Blurs(), scaling=SCALE)
