"""The blind-spot network as a `Denoiser`."""

from __future__ import annotations

import torch

from stillscan.models.denoisers.denoiser import Estimate
from stillscan.models.networks.blind_spot import BlindSpotNetwork, Planes, with_centre
from stillscan.models.networks.precision import mixed_precision
from stillscan.models.noise.profile import NoiseProfile


class BlindSpotDenoiser:
    """The blind-spot network as a `Denoiser`.

    Args:
        network: trained network.
        centre: combine the prediction with the pixel's own value; otherwise return the prediction.
        device: torch device.
    """

    def __init__(
        self, network: BlindSpotNetwork, centre: bool = True, device: torch.device | str = "cpu"
    ) -> None:
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self.centre = centre

    @torch.inference_mode()
    def denoise(self, image: Planes, noise: NoiseProfile) -> Estimate:
        """Estimate the clean image; `image` on about [0, 1], `noise` in the same unit."""
        y = image.to(self.device)
        level = torch.full((len(y),), noise.sigma, device=self.device)
        with mixed_precision(self.device):
            mean, log_variance = self.network(y, level)
        variance = log_variance.exp() * noise.sigma**2
        if self.centre:
            mean, variance = with_centre(mean, variance, y, noise.sigma_map(y) ** 2)
        return Estimate(mean.to(image.device), variance.sqrt().to(image.device))
