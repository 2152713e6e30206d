"""Low frequencies pass: the bounds hold whatever a network does."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillscan.models.denoisers.denoiser import Estimate, IdentityDenoiser
from stillscan.models.noise import synthesis
from stillscan.models.noise.profile import MAX_LAG
from stillscan.operators.array_volume import array_volume
from stillscan.operators.denoising.gate_limits import GateLimits
from stillscan.operators.denoising.intensity import HOUNSFIELD_RANGE
from stillscan.operators.denoising.pass_through import PassThrough
from stillscan.operators.graph.messages import Method
from stillscan.operators.graph.stages import denoised_blocks
from stillscan.operators.writing.provenance import Provenance

SIDE = 160
PROVENANCE = Provenance("0", "none", "none", "student", 1.0, "none", "float32", "cpu")
RULE = PassThrough.of("CT", (0.75, 0.75))  # 2 pixels
LOOSE = GateLimits(residual_deviation=100, residual_mean=100, clamp_score=1e6, clamped_share=1)
Y, X = np.mgrid[:SIDE, :SIDE] - SIDE / 2


def disc(diameter: float) -> np.ndarray:
    """Contrast 1, soft by one pixel at its rim."""
    return np.clip(diameter / 2 - np.hypot(Y, X) + 0.5, 0, 1).astype(np.float32)


def share_of(shown: np.ndarray, diameter: float) -> float:
    """Share of a disc's contrast, by a template free of its mean on twice its diameter."""
    template, window = disc(diameter), np.hypot(Y, X) <= diameter
    template = np.where(window, template - template[window].mean(), 0)
    return float((shown * template).sum() / (disc(diameter) * template).sum())


def smoothed(image: np.ndarray, scale: float) -> np.ndarray:
    return PassThrough(0, (scale, scale)).smoothed(torch.from_numpy(image)[None])[0].numpy()


def test_scale_is_in_millimetres_and_for_ct_alone():
    assert RULE.scale_px == (2.0, 2.0)
    assert PassThrough.of("CT", (0.5, 1.0)).scale_px == (3.0, 1.5)
    assert PassThrough.of("CT", (5.0, 0.01)).scale_px == (1.2, 8.0)
    assert PassThrough.of("MR", (1.0, 1.0)) is None


@pytest.mark.parametrize("diameter", [8, 12, 20])
def test_a_disc_of_four_s_keeps_half_of_its_contrast_though_the_network_erases_all(diameter):
    """Diameter 4 s and more; and no more than half stays of one that the network paints in."""
    image = disc(diameter)[None]
    kept = RULE.apply(image, np.zeros_like(image))[0]
    painted = RULE.apply(np.zeros_like(image), image)[0]
    assert share_of(kept, diameter) >= 0.48
    assert share_of(painted, diameter) <= 0.52
    assert kept[SIDE // 2, SIDE // 2] >= 0.85


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 6.0), st.sampled_from([1.2, 2.0, 3.0, 8.0]))
def test_smoothed_at_three_s_a_change_is_four_percent_of_what_was_wanted(seed, length, scale):
    """At every frequency, for changes of every correlation."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = synthesis.gaussian_spectrum(64, 64, length, length)
    wanted = synthesis.correlated_noise(spectrum, generator).numpy()
    rule = PassThrough(1.5, (scale, scale))
    noisy = np.zeros((1, 64, 64), np.float32)
    change = rule.apply(noisy, -wanted[None])[0]
    seen, unbounded = smoothed(change, 3 * scale), wanted
    assert np.square(seen).sum() <= (0.04 * 1.02) ** 2 * np.square(unbounded).sum()


class Erasing:
    """Takes everything but one value for noise."""

    def denoise(self, image, noise):
        return Estimate(torch.full_like(image, float(image.mean())), torch.zeros_like(image))


def through_the_pipeline(pixels, denoiser, strength=1.0):
    method = Method(denoiser, PROVENANCE, strength=strength, limits=LOOSE)
    volume = array_volume(pixels, "CT", [None] * len(pixels), unit="HU")
    return [each.content for each in denoised_blocks(volume, method)]


def test_the_bound_holds_through_the_pipeline_and_better_with_less_strength():
    rng = np.random.default_rng(0)
    noise = 10 * rng.standard_normal((SIDE, SIDE)).astype(np.float32)
    background = (40 + noise)[None]
    background[:, :24, :24] += 200  # an object: images of noise alone are refused
    shares = []
    for strength in (1.0, 0.5):
        with_disc, without = (
            through_the_pipeline(pixels.astype(np.float32), Erasing(), strength)[0].pixels[0]
            for pixels in (background + 30 * disc(8), background)
        )
        shares.append(share_of((with_disc - without) / 30, 8))
    assert shares[0] >= 0.35  # 4 s at the 1.5 pixels of an array without PixelSpacing: 6 pixels
    assert shares[1] >= 0.5 + shares[0] / 2 - 0.02


def test_exact_places_and_the_identity_stay_bit_identical():
    pixels = np.full((1, 64, 64), HOUNSFIELD_RANGE[0], np.float32)
    rng = np.random.default_rng(1)
    pixels[0, 16:48, 16:48] = 40 + 10 * rng.standard_normal((32, 32))
    (same,) = through_the_pipeline(pixels, IdentityDenoiser())
    assert np.array_equal(same.pixels, pixels)
    air = pixels == HOUNSFIELD_RANGE[0]
    (erased,) = through_the_pipeline(pixels, Erasing())
    assert np.array_equal(erased.pixels[air], pixels[air])
    assert not np.array_equal(erased.pixels, pixels)


def test_the_noise_that_passes_is_part_of_the_uncertainty():
    """White noise: sd of the smoothed noise over its own is 1 / (2 s sqrt(pi))."""
    white = np.pad([[1.0]], MAX_LAG)
    assert RULE.noise_share(white) == pytest.approx(1 / (2 * 2 * np.sqrt(np.pi)), rel=1e-6)
    generator = torch.Generator().manual_seed(0)
    spectrum = synthesis.gaussian_spectrum(256, 256, 1.0, 1.0)
    noise = synthesis.correlated_noise(spectrum, generator)
    full = torch.fft.fftshift(synthesis.autocorrelation(spectrum)).numpy()
    inside = slice(128 - MAX_LAG, 128 + MAX_LAG + 1)
    acf = full[inside, inside]
    measured = float(RULE.smoothed(noise[None]).std() / noise.std())
    assert RULE.noise_share(acf) == pytest.approx(measured, rel=0.1)
