"""A series is denoised as the application does it, or with the noise that was added."""

import numpy as np
import torch

from stillscan.app.evaluation.blind_denoising import denoise_blind, denoise_series
from stillscan.app.evaluation.noise_cases import noise_case
from stillscan.models.denoisers.denoiser import Estimate, IdentityDenoiser
from stillscan.models.training.dead_leaves import dead_leaves

CASE = noise_case("gaussian 15")
CLEAN = torch.from_numpy(np.stack([dead_leaves(96, np.random.default_rng(n)) for n in (0, 1)]))
NOISY = CASE.add(CLEAN[0], torch.Generator().manual_seed(0)).expand(2, 96, 96)


class Blank:
    """Takes everything away."""

    def denoise(self, image, noise):
        return Estimate(torch.full_like(image, -1.0))


class Drawing:
    """Gives back random numbers that its seeds decide."""

    def __init__(self, seeds=(0,)):
        self.seeds = seeds

    def seeded(self, seeds):
        return Drawing(seeds)

    def denoise(self, image, noise):
        generator = torch.Generator().manual_seed(self.seeds[0])
        return Estimate(torch.rand(image.shape, generator=generator))


def test_identity_keeps_every_pixel():
    assert np.array_equal(denoise_blind(IdentityDenoiser(), NOISY.numpy()), NOISY.numpy())


def test_a_series_without_noise_comes_back_as_it_is():
    flat = torch.full((2, 64, 64), 0.5)
    assert torch.equal(denoise_series(Blank(), flat, gated=True).slices, flat)


def test_the_gate_refuses_what_no_noise_explains():
    gated = denoise_series(Blank(), NOISY, CASE.profile(CLEAN), gated=True).slices
    free = denoise_series(Blank(), NOISY, CASE.profile(CLEAN), gated=False).slices
    assert torch.equal(gated, NOISY)
    assert torch.equal(free, torch.full_like(NOISY, -1.0))


def test_who_draws_random_numbers_draws_others_for_each_slice_and_the_same_every_time():
    first, again = (
        denoise_series(Drawing(), NOISY, CASE.profile(CLEAN), gated=False).slices for _ in range(2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[1])


class Overdone:
    """Takes twice the noise away, and says how sure it is."""

    def denoise(self, image, noise):
        edge = (CLEAN.shape[1] - image.shape[2]) // 2  # the plan looks at the middle
        clean = CLEAN[:1, None, edge:, edge:][..., : image.shape[2], : image.shape[3]]
        return Estimate(image - 2 * (image - clean), torch.full_like(image, 0.01))


def test_repeats_judge_the_correction_as_in_the_application():
    """Half of it is right."""
    generator = torch.Generator().manual_seed(1)
    noisy = torch.stack([CASE.add(CLEAN[0], generator) for _ in range(4)])
    profile, places = CASE.profile(CLEAN), [(0,)] * 4
    wide = CASE.profile(CLEAN).weakened(2.0)
    result = denoise_series(Overdone(), noisy, wide, gated=True, places=places)
    free = denoise_series(Overdone(), noisy, profile, gated=False, places=places)
    assert (result.slices - CLEAN[0]).square().mean() < 0.02 * CASE.strength**2
    assert torch.allclose(result.spread, torch.tensor(CASE.strength), rtol=0.1)
    assert torch.allclose(free.slices, 2 * CLEAN[:1] - noisy, atol=1e-6)
