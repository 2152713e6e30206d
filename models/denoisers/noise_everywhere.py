"""Any denoiser on images of which parts hold no noise."""

from __future__ import annotations

import torch

from stillscan.models.denoisers.denoiser import Denoiser, Estimate, Image
from stillscan.models.noise.noise_free import exact_places, noise_everywhere
from stillscan.models.noise.profile import NoiseProfile


def denoise_with_noise_everywhere(
    denoiser: Denoiser, image: Image, noise: NoiseProfile
) -> Estimate:
    """Estimate the clean image; exact places come back bit by bit, with a spread of 0.

    Args:
        denoiser: any; it sees noise where the image is constant, too.
        image: slices of one series.
        noise: in the image's own unit.
    """
    exact = torch.stack([exact_places(plane[0]) for plane in image])[:, None]
    if not exact.any():
        return denoiser.denoise(image, noise)
    filled = torch.stack([noise_everywhere(plane[0], noise) for plane in image])[:, None]
    estimate = denoiser.denoise(filled, noise)
    spread = None if estimate.spread is None else estimate.spread.masked_fill(exact, 0)
    return Estimate(torch.where(exact, image, estimate.mean), spread)
