"""The simple methods that an anomaly model must beat, each a function from images to maps.

Simple thresholds and denoisers equal or beat diffusion in published comparisons (Meissen et al.
2021; Kascenas et al. 2022), so they stand in every table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from stillscan.models.anomaly.autoencoder import LatentAutoencoder
from stillscan.models.anomaly.model import Images
from stillscan.models.networks.precision import mixed_precision
from stillscan.models.networks.unet import PlainUNet
from stillscan.models.training.loop import Losses

COMPONENTS = 64
NEIGHBOURS = 5
COARSE = 16  # pixels of the image for one value of the coarse noise, times 16 / side
COARSE_SIGMA = 0.2

AnomalyMap = Callable[[Images], Images]


class CoarseNoiseDenoiser(nn.Module):
    """Removes smooth noise (Kascenas et al. 2022); what it removes from an image is its map."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128)) -> None:
        super().__init__()
        self.arguments = {"widths": list(widths)}
        self.body = PlainUNet(4, widths, 1)
        self.output = nn.Conv2d(widths[0], 4, 3, padding=1)

    def forward(self, x: Images) -> Images:
        """Return the image without coarse noise."""
        return x - F.pixel_shuffle(self.output(self.body(F.pixel_unshuffle(x, 2))), 2)


def with_coarse_noise(x: Images, generator: Generator) -> Images:
    """Add normal noise drawn on a grid of 16 x 16 and interpolated."""
    coarse = torch.randn(len(x), 1, COARSE, COARSE, generator=generator).to(x)
    return x + COARSE_SIGMA * F.interpolate(coarse, x.shape[-2:], mode="bilinear")


def denoiser_loss(network: nn.Module, batch: tuple[Images, Images]) -> Losses:
    """Return the mean squared error; the batch holds images without and with coarse noise."""
    clean, noisy = batch
    with mixed_precision(clean.device):
        made = network(noisy)
    loss = (made.float() - clean).square().mean()
    return Losses(loss, loss)


def baselines(
    healthy: Images, autoencoder: LatentAutoencoder, denoiser: CoarseNoiseDenoiser
) -> Iterator[tuple[str, AnomalyMap]]:
    """Yield the baselines by name; `healthy` are the training images."""
    flat = healthy.flatten(1)
    mean, deviation = flat.mean(0), flat.std(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # svd_lowrank draws its first axes
        axes = torch.svd_lowrank(flat - mean, min(COMPONENTS, len(flat) - 1), niter=4)[2]

    def like(values: Tensor, images: Images) -> Images:
        return values.reshape(images.shape)

    def pca(images: Images) -> Images:
        centred = images.flatten(1) - mean
        return like((centred - centred @ axes @ axes.T).abs(), images)

    def neighbours(images: Images) -> Images:
        nearest = torch.cdist(images.flatten(1), flat).topk(NEIGHBOURS, 1, largest=False).indices
        return like((images.flatten(1) - flat[nearest].mean(1)).abs(), images)

    yield "intensity", lambda images: images
    yield (
        "atlas z-score",
        lambda images: like((images.flatten(1) - mean).abs() / (deviation + 0.02), images),
    )
    yield f"PCA {COMPONENTS}", pca
    yield f"{NEIGHBOURS} nearest neighbours", neighbours
    yield "coarse-noise denoiser", lambda images: (images - denoiser(images)).abs()
    yield "VQ-VAE residual", lambda images: (images - autoencoder(images)).abs()
