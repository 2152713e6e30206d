"""Lesions put into healthy images, whose places are known: ellipses of an even intensity."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool
from torch import Generator, Tensor

from stillscan.models.anomaly.model import Images

SIZES: Mapping[str, tuple[float, float]] = {  # radius in pixels of an image of 64
    "small": (2.5, 6.0),
    "large": (5.0, 10.0),
}
LEAST_CONTRAST = 0.15
INSIDE = 0.1  # intensity above which a pixel belongs to the body


def with_sprites(
    images: Images, radius: tuple[float, float], seed: int
) -> tuple[Images, Bool[Tensor, "batch 1 height width"]]:
    """Put one ellipse into each image; return the images and the masks."""
    generator = Generator().manual_seed(seed)
    side = images.shape[-1]
    down, across = torch.meshgrid(*(torch.arange(n) for n in images.shape[-2:]), indexing="ij")
    made, masks = images.clone(), torch.zeros_like(images, dtype=torch.bool)
    for image, mask in zip(made[:, 0], masks[:, 0], strict=True):
        draws = torch.rand(5, generator=generator).tolist()
        places = (image > INSIDE).nonzero()
        middle = (
            places[int(draws[0] * len(places))] if len(places) else torch.tensor([side // 2] * 2)
        )
        longer = (radius[0] + draws[1] * (radius[1] - radius[0])) * side / 64
        shorter, angle = longer * (0.5 + 0.5 * draws[2]), draws[3] * math.pi
        y, x = down - middle[0], across - middle[1]
        u = x * math.cos(angle) + y * math.sin(angle)
        v = y * math.cos(angle) - x * math.sin(angle)
        mask[...] = ((u / longer) ** 2 + (v / shorter) ** 2 <= 1).to(mask.device)
        # an intensity that differs from what was there
        there = float(image[mask].mean())
        room = [max(0.0, there - LEAST_CONTRAST), max(0.0, 1 - there - LEAST_CONTRAST)]
        value = draws[4] * sum(room)
        image[mask] = value if value < room[0] else value + 1 - sum(room)
    return made, masks
