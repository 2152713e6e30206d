"""Batches of noisy patches: pure functions of seed and number, with fresh noise of the same law."""

from dataclasses import replace

import numpy as np
import torch

from stillscan.models.noise.profile import MAX_LAG
from stillscan.models.noise.synthesis import (
    autocorrelation,
    correlated_noise,
    gaussian_spectrum,
    spectrum_of,
)
from stillscan.models.training.noisy_images import NoisyImage, draw_noisy_batch, draw_noisy_batches
from tests.models.test_student import white_profile


def correlated_profile(sigma, length_y, length_x):
    acf = torch.fft.fftshift(autocorrelation(gaussian_spectrum(64, 64, length_y, length_x)))
    window = slice(32 - MAX_LAG, 33 + MAX_LAG)
    return replace(white_profile(sigma), acf=acf[window, window].numpy().astype(np.float64))


def image(sigma=0.1, size=96):
    generator = torch.Generator().manual_seed(3)
    return NoisyImage(torch.rand(size, size, generator=generator), white_profile(sigma))


def test_a_batch_depends_on_seed_and_number_alone():
    first, again = (draw_noisy_batch([image()], 2, seed=1, number=7) for _ in range(2))
    other = draw_noisy_batch([image()], 2, seed=1, number=8)
    assert torch.equal(first.noisy, again.noisy)
    assert torch.equal(first.fresh, again.fresh)
    assert not torch.equal(first.noisy, other.noisy)


def test_ranks_draw_different_batches_that_together_are_one_run():
    ranks = [next(draw_noisy_batches([image()], 2, 0, 3, 64, rank, 2)) for rank in (0, 1)]
    for rank, batch in enumerate(ranks):
        expected = draw_noisy_batch([image()], 2, 0, 3 * 2 + rank, 64)
        assert torch.equal(batch.noisy, expected.noisy)


def test_batches_drawn_ahead_are_the_same_in_the_same_order():
    at_once, ahead = (draw_noisy_batches([image()], 2, 0, 5, 64, ahead=n) for n in (0, 3))
    for _ in range(6):
        one, other = next(at_once), next(ahead)
        assert torch.equal(one.noisy, other.noisy)
        assert torch.equal(one.fresh, other.fresh)
        assert torch.equal(one.generator.get_state(), other.generator.get_state())
    ahead.close()


def test_fresh_noise_has_the_level_and_the_correlation_of_the_profile():
    noisy = NoisyImage(torch.full((200, 200), 0.5), correlated_profile(0.1, 1.2, 1.2))
    fresh = draw_noisy_batch([noisy], 64, 0, 0).fresh[:, 0]
    assert abs(float(fresh.std()) / 0.1 - 1) < 0.05
    found = (fresh[:, 1:] * fresh[:, :-1]).mean() / fresh.square().mean()
    expected = noisy.profile.acf[MAX_LAG + 1, MAX_LAG]
    assert abs(float(found) - float(expected)) < 0.03


def test_correlation_turns_with_the_patch():
    """Noise along the rows becomes noise along the columns when the patch is turned."""
    profile = correlated_profile(0.1, 0.0, 1.5)
    spectrum = gaussian_spectrum(200, 200, 0.0, 1.5)
    y = 0.1 * correlated_noise(spectrum, torch.Generator().manual_seed(0))
    batch = draw_noisy_batch([NoisyImage(y, profile)], 32, 0, 0)
    for patch, acf in zip(batch.noisy[:, 0], batch.acf, strict=True):
        along_columns = (patch[1:] * patch[:-1]).mean() / patch.square().mean()
        assert abs(float(along_columns) - float(acf[MAX_LAG + 1, MAX_LAG])) < 0.2


def test_a_spectrum_gives_back_its_correlation():
    acf = correlated_profile(1.0, 0.8, 0.5).acf
    found = autocorrelation(spectrum_of(torch.from_numpy(acf).float(), 64, 64))
    assert abs(float(found[0, 1]) - acf[MAX_LAG, MAX_LAG + 1]) < 0.01
    assert abs(float(found[1, 0]) - acf[MAX_LAG + 1, MAX_LAG]) < 0.01
    assert abs(float(found[10, 10])) < 0.01


def test_labels_are_cut_like_their_images():
    noisy = image()
    batch = draw_noisy_batch([replace(noisy, label=2 * noisy.pixels)], 4, 0, 0)
    assert torch.equal(batch.label, 2 * batch.noisy)
    assert torch.equal(draw_noisy_batch([noisy], 4, 0, 0).label, batch.noisy)
