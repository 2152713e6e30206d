"""Registration of two images by optimising one velocity for them: no weights, no training.

`between(a, b, velocity, gamma)` makes the images in between.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stillscan.models.motion.fields import (
    Field,
    Image,
    integrate,
    local_correlation,
    roughness,
    warp,
)

GRID = 4  # pixels of a level between the knots of the velocity
SMOOTHNESS = 0.05  # weight of the roughness of the velocity against the correlation
STEP = 0.3  # pixels of a level: of Adam
SQUARINGS = 4  # of half a velocity
LEVELS = ((4, 30), (2, 30))  # factor of reduction, number of updates


def register(
    a: Image,
    b: Image,
    levels: Sequence[tuple[int, int]] = LEVELS,
    floor: float = 1e-5,
) -> Field:
    """Return the velocity v with `warp(a, exp(v))` like b and `warp(b, exp(-v))` like a.

    Both images are warped halfway, so that exchanging them changes the sign of v and no more.

    Args:
        a: images of about 0 to 1, with any number of channels.
        b: the other images.
        levels: factor of reduction and number of updates, from coarse to fine.
        floor: least variance, see `local_correlation`.
    """
    dimensions = a.ndim - 2
    velocity = a.new_zeros(len(a), dimensions, *(1,) * dimensions)
    for factor, updates in levels:
        pair = torch.cat([reduced(a, factor), reduced(b, factor)])
        space = pair.shape[2:]
        knots = [max(2, round(each / GRID)) for each in space]
        begin = resized(velocity, knots) / factor
        velocity = _optimised(pair, begin, updates, floor) * factor
    return resized(velocity, a.shape[2:])


def _optimised(
    pair: Image, knots: Float[Tensor, "half axis *knots"], updates: int, floor: float
) -> Float[Tensor, "half axis *space"]:
    """Minimise by Adam (Kingma and Ba 2015), without torch's, which takes seconds to import."""
    mean, square = torch.zeros_like(knots), torch.zeros_like(knots)
    for number in range(1, updates + 1):
        knots = knots.detach().requires_grad_(True)
        velocity = resized(knots, pair.shape[2:])
        half = integrate(torch.cat([velocity, -velocity]) / 2, SQUARINGS)
        one, other = warp(pair, half).chunk(2)
        loss = SMOOTHNESS * roughness(knots) - local_correlation(one, other, floor).mean()
        (gradient,) = torch.autograd.grad(loss * len(knots), knots)
        mean.lerp_(gradient, 0.1)
        square.lerp_(gradient.square(), 0.001)
        step = (mean / (1 - 0.9**number)) / ((square / (1 - 0.999**number)).sqrt() + 1e-8)
        knots = knots - STEP * step
    return resized(knots.detach(), pair.shape[2:])


def reduced(image: Image, factor: int) -> Float[Tensor, "batch channel *smaller"]:
    """Average over squares of `factor` pixels."""
    pool = F.avg_pool2d if image.ndim == 4 else F.avg_pool3d
    return pool(image, factor, ceil_mode=True) if factor > 1 else image


def resized(field: Field, space: Sequence[int]) -> Float[Tensor, "batch axis *other"]:
    """Return the field on another grid over the same image, linearly."""
    mode = "bilinear" if field.ndim == 4 else "trilinear"
    return F.interpolate(field, tuple(space), mode=mode, align_corners=False)


def between(a: Image, b: Image, velocity: Field, gamma: float) -> Image:
    """Return the image at the share `gamma` of the way from a (0) to b (1).

    `(1 - gamma) warp(a, exp(gamma v)) + gamma warp(b, exp((gamma - 1) v))`: both ends are met
    exactly, and no field folds.
    """
    if gamma in (0, 1):
        return b if gamma else a
    one = warp(a, integrate(gamma * velocity))
    other = warp(b, integrate((gamma - 1) * velocity))
    return (1 - gamma) * one + gamma * other
