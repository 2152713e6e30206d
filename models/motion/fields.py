"""Displacement fields in pixels, in two or three dimensions.

A field d, (batch, axis, *space), moves where an image is read:
`warp(image, d)(p) = image(p + d(p))`.
Axes are those of the tensor (rows before columns). Beyond an image, its border goes on.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stillscan.models.networks.student import running_sum

Image = Float[Tensor, "batch channel *space"]
Field = Float[Tensor, "batch axis *space"]
Scalars = Float[Tensor, "batch *space"]
SQUARINGS = 7  # a step of the integration is 1/128 of the velocity
WINDOW = 9  # of the local correlation, pixels (Balakrishnan et al. 2019)


def warp(image: Image, field: Field, mode: str = "bilinear") -> Image:
    """Read the image at p + field(p), linearly between pixels; `mode` as in `grid_sample`."""
    space = image.shape[2:]
    axes = [torch.arange(each, dtype=field.dtype, device=field.device) for each in space]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij")) + field
    scale = torch.tensor([2 / max(each - 1, 1) for each in space], device=field.device)
    places = places.movedim(1, -1) * scale - 1
    return F.grid_sample(
        image, places.flip(-1), mode=mode, padding_mode="border", align_corners=True
    )


def compose(first: Field, then: Field) -> Field:
    """Return the field of `warp(warp(image, first), then)`, up to interpolation."""
    return then + warp(first, then)


def integrate(velocity: Field, squarings: int = SQUARINGS) -> Field:
    """Return exp(velocity), the flow of a stationary velocity after unit time, by squaring.

    `integrate(-v)` is the inverse of `integrate(v)`, up to interpolation (Arsigny et al. 2006).
    """
    field = velocity / 2**squarings
    for _ in range(squarings):
        field = compose(field, field)
    return field


def jacobian_determinant(field: Field) -> Scalars:
    """Return det(I + grad field), by central differences; not above 0 where the field folds."""
    axes = tuple(range(2, field.ndim))
    columns = torch.gradient(field, dim=axes)
    jacobian = torch.stack(columns, -1).movedim(1, -2)
    return torch.linalg.det(jacobian + torch.eye(len(axes), device=field.device))


def local_correlation(one: Image, other: Image, floor: float = 1e-5) -> Image:
    """Return the squared correlation of two images in a square window around each pixel, 0 to 1.

    Brightness and contrast may differ (blood that flows in). `floor` is the least variance of a
    window, times its pixels: set above that of the noise, flat places give no correlation.
    """
    pixels = WINDOW ** (one.ndim - 2)

    def total(values: Tensor) -> Tensor:
        for axis in range(2, values.ndim):
            values = running_sum(values, WINDOW, axis)
        return values

    planes = total(torch.cat([one, other, one * one, other * other, one * other], 1))
    a, b, aa, bb, ab = planes.chunk(5, 1)
    cross = ab - a * b / pixels
    spread = [
        (squares - sums * sums / pixels).clamp(min=floor) for squares, sums in ((aa, a), (bb, b))
    ]
    return cross * cross / (spread[0] * spread[1])


def roughness(field: Field) -> Tensor:
    """Return the mean squared difference of neighbours along all axes."""
    axes = range(2, field.ndim)
    return torch.stack([field.diff(dim=axis).square().mean() for axis in axes]).mean()
