"""Peers: they denoise, and BM3D gets the right noise."""

import numpy as np
import pytest
import torch

from stillscan.app.evaluation import peers
from stillscan.app.evaluation.noise_cases import noise_case
from stillscan.app.evaluation.peers import (
    PackageMissingError,
    bm3d_oracle,
    need,
    nlm,
    total_variation,
    wavelet,
)
from stillscan.models.training.dead_leaves import dead_leaves


@pytest.fixture(scope="module")
def clean():
    return dead_leaves(96, np.random.default_rng(0))


@pytest.mark.parametrize("peer", [nlm, total_variation, wavelet])
def test_peers_come_nearer_to_the_truth(peer, clean):
    case = noise_case("gaussian 15")
    noisy = case.add(torch.from_numpy(clean), torch.Generator().manual_seed(0)).numpy()
    result = peer(noisy)
    assert result.dtype == np.float32
    assert np.square(result - clean).mean() < 0.6 * np.square(noisy - clean).mean()


@pytest.mark.parametrize("peer", [nlm, total_variation, wavelet])
def test_peers_leave_an_image_without_noise_nearly_alone(peer):
    assert np.abs(peer(np.full((64, 64), 0.5, np.float32)) - 0.5).max() < 1e-3


@pytest.mark.parametrize("name", ["poisson 200", "gamma 100"])
def test_transforms_of_bm3d_keep_the_mean(name, monkeypatch):
    """With a denoiser that finds the mean of a flat image, the way back must find its value."""
    monkeypatch.setattr(peers, "_bm3d", lambda image, sigma: np.full_like(image, image.mean()))
    case, clean = noise_case(name), torch.full((512, 512), 0.4)
    noisy = case.add(clean, torch.Generator().manual_seed(0))
    oracle = bm3d_oracle(case)
    assert oracle is not None
    mean = oracle.denoise(noisy[None, None], case.profile(clean[None])).mean
    assert mean.mean().item() == pytest.approx(0.4, rel=0.002)


@pytest.mark.parametrize("name", ["poisson 200", "gamma 100"])
def test_transforms_of_bm3d_make_the_noise_what_it_is_told(name, monkeypatch):
    told_sigma = []

    def remember(image, sigma):
        told_sigma.append((image.std(), sigma))
        return image

    monkeypatch.setattr(peers, "_bm3d", remember)
    case, clean = noise_case(name), torch.full((256, 256), 0.4)
    noisy = case.add(clean, torch.Generator().manual_seed(0))
    oracle = bm3d_oracle(case)
    assert oracle is not None
    oracle.denoise(noisy[None, None], case.profile(clean[None]))
    ((measured, sigma),) = told_sigma
    assert measured == pytest.approx(sigma, rel=0.03)


def test_spectrum_that_bm3d_is_told_has_the_power_of_the_noise():
    case = noise_case("correlated 1.2 px 15")
    density = peers._density(case, (64, 80))
    assert density.mean() / (64 * 80) == pytest.approx((15 / 255) ** 2, rel=1e-6)


def test_nobody_can_tell_bm3d_of_rician_noise():
    assert bm3d_oracle(noise_case("rician 6")) is None


def test_a_missing_package_is_named_with_what_to_do():
    with pytest.raises(PackageMissingError, match=r"no_such_package.*pip install"):
        need("no_such_package", "pip install it")
