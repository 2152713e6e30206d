"""Fields, registration and images between: against closed forms, and MONAI's blocks."""

import math

import pytest
import torch
from monai.losses import LocalNormalizedCrossCorrelationLoss
from monai.networks.blocks import DVF2DDF, Warp

from stillscan.models.motion.averaging import average, interpolation_variance
from stillscan.models.motion.fields import (
    compose,
    integrate,
    jacobian_determinant,
    local_correlation,
    warp,
)
from stillscan.models.motion.registration import between, register

SPACES = [(24, 32), (10, 12, 14)]


def smooth(shape, size, seed=0, knots=6):
    """Random and smooth, with a largest absolute value of `size`."""
    coarse = torch.randn(
        *shape[:2], *(knots,) * (len(shape) - 2), generator=torch.Generator().manual_seed(seed)
    )
    mode = "bicubic" if len(shape) == 4 else "trilinear"
    field = torch.nn.functional.interpolate(coarse, shape[2:], mode=mode, align_corners=True)
    return field * size / field.abs().max()


def places(space):
    axes = [torch.arange(each, dtype=torch.float32) for each in space]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def heart(shift=0.0, side=64):
    """A bright disc in a darker ring, moved down by `shift` pixels."""
    y, x = places((side, side))[0] - (side - 1) / 2
    radius = torch.hypot(y - shift, x)
    blood, wall = torch.sigmoid(12 - radius), torch.sigmoid(18 - radius)
    return (0.2 + 0.5 * blood + 0.2 * wall + 0.1 * torch.sin(x / 3) * wall)[None, None]


@pytest.mark.parametrize("space", SPACES)
def test_warp_and_integration_agree_with_monai(space):
    image = smooth((2, 1, *space), 1.0)
    velocity = smooth((2, len(space), *space), 2.5, seed=1)
    assert torch.allclose(warp(image, velocity), Warp()(image, velocity), atol=1e-5)
    ddf = DVF2DDF(7, padding_mode="border")(velocity)
    assert torch.allclose(integrate(velocity), ddf, atol=1e-4)


@pytest.mark.parametrize("space", SPACES)
def test_local_correlation_agrees_with_monai(space):
    one, other = smooth((2, 1, *space), 1.0), smooth((2, 1, *space), 1.0, seed=1)
    loss = LocalNormalizedCrossCorrelationLoss(len(space), 9, smooth_dr=1e-5)
    assert -local_correlation(one, other).mean() == pytest.approx(float(loss(one, other)), abs=1e-4)
    assert float(local_correlation(one, 3 * one).mean()) == pytest.approx(1, abs=1e-2)


def test_the_jacobian_of_scaling_and_rotation_is_the_closed_form():
    p = places((20, 20))
    assert torch.allclose(jacobian_determinant(0.1 * p), torch.full((1, 20, 20), 1.21), atol=1e-4)
    turned = torch.tensor([[math.cos(0.3), -math.sin(0.3)], [math.sin(0.3), math.cos(0.3)]])
    rotation = torch.einsum("ij,bjyx->biyx", turned, p) - p
    assert torch.allclose(jacobian_determinant(rotation), torch.ones(1, 20, 20), atol=1e-4)
    assert (jacobian_determinant(-2 * p) > 0).all()  # two axes are mirrored
    assert (jacobian_determinant(torch.cat([-2 * p[:, :1], 0 * p[:, 1:]], 1)) < 0).all()


def test_composed_fields_read_in_turn():
    image = smooth((1, 1, 40, 40), 1.0)
    first, then = smooth((1, 2, 40, 40), 2.0, 1), smooth((1, 2, 40, 40), 2.0, 2)
    apart = warp(image, compose(first, then)) - warp(warp(image, first), then)
    assert apart.abs()[..., 4:-4, 4:-4].max() < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_an_integrated_velocity_is_invertible_and_does_not_fold(seed):
    velocity = smooth((1, 2, 128, 128), 12.0, seed)
    field = integrate(velocity)
    assert field.abs().max() > 6
    assert (jacobian_determinant(field) > 0).all()
    back = compose(integrate(-velocity), field)
    assert back[..., 16:-16, 16:-16].square().mean().sqrt() < 0.05


def test_a_translation_is_found():
    velocity = register(heart(), heart(1.7))
    middle = integrate(velocity)[0, :, 20:44, 20:44].mean((1, 2))
    assert middle == pytest.approx(torch.tensor([-1.7, 0.0]), abs=0.1)
    assert torch.allclose(register(heart(1.7), heart()), -velocity, atol=0.05)


def test_images_between_meet_both_ends_exactly_and_beat_a_cross_fade():
    a, b, true = heart(-3), heart(3), heart()
    velocity = register(a, b)
    assert torch.equal(between(a, b, velocity, 0.0), a)
    assert torch.equal(between(a, b, velocity, 1.0), b)
    error = (between(a, b, velocity, 0.5) - true).square().mean()
    assert 10 * torch.log10(((a + b) / 2 - true).square().mean() / error) > 6


def test_the_variance_of_interpolated_noise_is_known():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(200, 1, 32, 32, generator=generator)
    field = torch.zeros(1, 2, 32, 32)
    field[:, 0], field[:, 1] = 0.3, 1.5
    measured = warp(noise, field.expand(200, -1, -1, -1), "bicubic")[..., 3:-3, 3:-3].var()
    assert measured == pytest.approx(
        float(interpolation_variance(field, (0.0, 0.0)).mean()), rel=0.02
    )


def beating(noise, phases=8, side=64):
    """A beating heart: clean phases, and the same with noise."""
    clean = torch.cat([heart(2 * math.sin(2 * math.pi * i / phases), side) for i in range(phases)])
    drawn = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    return clean, clean + noise * drawn


def test_phases_are_averaged_along_the_motion():
    clean, noisy = beating(0.03)
    sigma = torch.full_like(noisy, 0.03)
    averaged = average(noisy, sigma, closes=True)
    error = (averaged.mean - clean).square().mean().sqrt()
    assert error < 0.5 * 0.03
    assert error == pytest.approx(0.03 * float(averaged.share.median()), rel=0.35)
    assert averaged.used > 0.9


def test_what_the_neighbours_do_not_show_stays():
    """Contrast that flows in and an ectopic beat: the phase keeps its own pixels there."""
    clean, noisy = beating(0.03)
    flash = clean.clone()
    flash[3] += 0.5 * (torch.hypot(*(places((64, 64))[0] - 32)) < 7)
    flash[5] = heart(14)
    sigma = torch.full_like(noisy, 0.03)
    averaged = average(flash + noisy - clean, sigma, closes=True)
    for phase, at in ((3, (slice(28, 36), slice(28, 36))), (5, (slice(36, 54), slice(26, 38)))):
        there = (averaged.mean - flash)[phase, 0][at]
        assert there.square().mean().sqrt() < 1.5 * 0.03
    assert averaged.share[3, 0, 28:36, 28:36].min() > 0.9


def test_the_ends_of_a_cine_that_does_not_close_have_fewer_neighbours():
    _, noisy = beating(0.03)
    averaged = average(noisy, torch.full_like(noisy, 0.03), closes=False)
    shares = averaged.share.median(-1).values.median(-1).values[:, 0]
    assert shares[0] > 1.15 * shares[4]
    assert shares[-1] > 1.15 * shares[4]
