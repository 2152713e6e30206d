"""Averages each phase of a cine with its neighbours, warped onto it, where they show the same."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from stillscan.models.motion.fields import (
    WINDOW,
    Field,
    compose,
    integrate,
    jacobian_determinant,
    warp,
)
from stillscan.models.motion.registration import register
from stillscan.models.networks.student import box_mean

Phases = Float[Tensor, "phase 1 height width"]
LEVELS = ((4, 15), (2, 15))  # neighbouring phases are near
REACH = 2  # neighbours on either side
RESIDUAL_WINDOW = 7  # pixels
CHANCE = 0.3  # of the residual's variance: 1.5 standard deviations of its mean in the window
FARTHEST_OFF = 3.0  # sigma: a neighbour that differs by more is not used
CUBIC = -0.75  # of the kernel of `grid_sample`
INCONSISTENT = 1.0  # pixels between forward and backward field


@dataclass(frozen=True)
class Averaged:
    """Phases averaged along the motion.

    Attributes:
        mean: the averages.
        share: standard deviation of their noise over that of the phase alone, at each pixel.
        used: share of the pixels of all neighbours that the gate let pass.
    """

    mean: Phases
    share: Phases
    used: float


def average(
    phases: Phases,
    sigma: Phases,
    correlation: tuple[float, float] = (0.0, 0.0),
    *,
    closes: bool = False,
    farthest: float = torch.inf,
) -> Averaged:
    """Average each phase with two neighbours on either side, along the motion between them.

    A neighbour's weight is the inverse of its noise and its squared error, which the residual in a
    window shows beyond what noise explains. It is 0, pixel by pixel, where the field folds, is not
    consistent, or moves too far, or the residual is above 3 sigma.

    Args:
        phases: of one place, in order; images of about 0 to 1.
        sigma: standard deviation of their noise.
        correlation: of the noise of neighbours down a column and along a row.
        closes: whether the first phase follows the last.
        farthest: largest displacement between neighbouring phases, pixels.
    """
    count = len(phases)
    following = phases.roll(-1, 0)
    floor = 4 * WINDOW**2 * float(sigma.square().mean()) / 4  # of images reduced by 2, at its noise
    velocity = register(phases, following, LEVELS, floor)
    forward, backward = integrate(velocity), integrate(-velocity)  # read i, i + 1 on the other
    sound = _sound(forward, backward, farthest), _sound(backward, forward, farthest)
    total, weights, variance = phases.clone(), torch.ones_like(phases), torch.ones_like(phases)
    passed = pixels = 0.0
    for direction, (field, fine) in enumerate(
        ((backward, sound[1]), (forward.roll(1, 0), sound[0].roll(1, 0)))
    ):
        sign = -1 if direction == 0 else 1
        path, good = field, fine
        for distance in range(1, REACH + 1):
            if distance > 1:
                good = good * warp(fine.roll(sign * (distance - 1), 0), path).floor()
                path = compose(field.roll(sign * (distance - 1), 0), path)
            seen = warp(phases.roll(sign * distance, 0), path, "bicubic")
            left = interpolation_variance(path, correlation)
            weight = good * _weight(seen - phases, sigma, left)
            if not closes:
                weight[_beyond(count, sign * distance)] = 0
            total += weight * seen
            weights += weight
            variance += weight**2 * left
            passed, pixels = passed + float((weight > 0).sum()), pixels + weight.numel()
    return Averaged(total / weights, variance.sqrt() / weights, passed / pixels)


def _weight(residual: Phases, sigma: Phases, left: Phases) -> Phases:
    """Return the weight of a neighbour: 1, less where its error adds to the noise.

    Interpolation lowers noise and fine detail alike, so that a lower noise adds no weight.
    """
    expected = sigma.square() * (1 + left)
    found = box_mean(residual.square() / expected, RESIDUAL_WINDOW)
    error = (found - 1 - CHANCE).clamp(min=0) * (1 + left)
    weight = 1 / (1 + error)
    return weight.masked_fill(found > FARTHEST_OFF**2, 0)


def _sound(field: Field, other: Field, farthest: float) -> Phases:
    """Return 1 where a field does not fold, agrees with its inverse and is not too long, else 0."""
    apart = compose(field, other).square().sum(1, keepdim=True).sqrt()
    length = field.square().sum(1, keepdim=True).sqrt()
    unfolded = jacobian_determinant(field)[:, None] > 0
    return ((apart < INCONSISTENT) & (length <= farthest) & unfolded).float()


def interpolation_variance(field: Field, correlation: tuple[float, float]) -> Phases:
    """Return the variance of noise after cubic interpolation over that before.

    `correlation` is that of noise one pixel apart, down and across.
    """
    part = field - field.floor()
    far = [((CUBIC * x - 5 * CUBIC) * x + 8 * CUBIC) * x - 4 * CUBIC for x in (1 + part, 2 - part)]
    near = [((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1 for x in (part, 1 - part)]
    taps = torch.stack([far[0], *near, far[1]])
    share = torch.tensor(correlation, device=field.device)[:, None, None]
    squares = taps.square().sum(0) + 2 * share * (taps[1:] * taps[:-1]).sum(0)
    return squares.prod(1, keepdim=True)


def _beyond(count: int, shift: int) -> slice:
    """Return the phases whose neighbour lies beyond the ends of the cine; as `roll(shift)`."""
    return slice(count + shift, None) if shift < 0 else slice(0, shift)
