"""The VQ-VAE that makes latents of images (van den Oord et al. 2017; Pinaya et al. 2022)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from stillscan.models.networks.precision import mixed_precision
from stillscan.models.networks.unet import ResidualBlock
from stillscan.models.training.loop import Losses

Images = Float[Tensor, "batch 1 height width"]
Latents = Float[Tensor, "batch channel row column"]

COMMITMENT = 0.25
CODE_DECAY = 0.99  # of the moving averages of the codebook
DEAD = 0.5  # vectors for each batch, on average: a code with fewer is moved


class VectorQuantizer(nn.Module):
    """Replaces each vector by the nearest of `codes`, which follow the vectors (no gradient).

    The codebook is held as parameters without a gradient, so that the moving average of the
    weights covers it too.

    Args:
        codes: number of codes.
        size: length of a code.
    """

    def __init__(self, codes: int = 256, size: int = 8) -> None:
        super().__init__()
        self.codebook = _fixed(torch.randn(codes, size))
        self.counts = _fixed(torch.zeros(codes))
        self.sums = _fixed(torch.zeros(codes, size))

    def forward(self, z: Latents) -> Latents:
        """Return the nearest codes; the gradient passes straight through to `z`."""
        vectors = z.movedim(1, -1)
        quantized = F.embedding(self.nearest(z), self.codebook).movedim(-1, 1)
        if self.training and torch.is_grad_enabled():
            self._follow(vectors.detach().flatten(0, -2))
        return z + (quantized - z).detach()

    def nearest(self, z: Latents) -> Int[Tensor, "batch row column"]:
        """Return the index of the code nearest to each vector."""
        vectors = z.detach().movedim(1, -1)
        distance = self.codebook.square().sum(1) - 2 * vectors @ self.codebook.T
        return distance.argmin(-1)

    @torch.no_grad()
    def _follow(self, vectors: Float[Tensor, "vector size"]) -> None:
        """Move each code towards the mean of its vectors (van den Oord et al. 2017, A.1)."""
        nearest = self.nearest(vectors.T[None, :, :, None]).flatten()
        chosen = F.one_hot(nearest, len(self.codebook)).to(vectors)
        self.counts.lerp_(chosen.sum(0), 1 - CODE_DECAY)
        self.sums.lerp_(chosen.T @ vectors, 1 - CODE_DECAY)
        total = self.counts.sum()
        smoothed = (self.counts + 1e-5) / (total + len(self.counts) * 1e-5) * total
        self.codebook.copy_(self.sums / smoothed[:, None])
        dead = (self.counts < DEAD * (1 - CODE_DECAY)).nonzero().flatten()
        if len(dead):
            self._revive(dead, vectors, nearest)

    def _revive(self, dead: Tensor, vectors: Tensor, nearest: Tensor) -> None:
        """Move codes without vectors to vectors that are far from theirs."""
        distance = (vectors - self.codebook[nearest]).square().sum(1)
        far = distance.topk(max(len(vectors) // 2, 1)).indices
        there = far[torch.linspace(0, len(far) - 1, len(dead)).long()]
        self.codebook[dead] = vectors[there]
        self.counts[dead] = 1.0
        self.sums[dead] = vectors[there]


class LatentAutoencoder(nn.Module):
    """Images to latents of `1 / 2 ** len(widths)` the height and width, and back.

    Args:
        widths: channels at 1/2, 1/4, ... of the image's size.
        blocks: residual blocks at each size.
        codes, size: of the codebook.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (32, 64),
        blocks: int = 2,
        codes: int = 256,
        size: int = 8,
    ) -> None:
        super().__init__()
        self.arguments = {"widths": list(widths), "blocks": blocks, "codes": codes, "size": size}
        self.factor = 2 ** len(widths)
        self.quantizer = VectorQuantizer(codes, size)
        down: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(4, widths[0], 3, padding=1)]
        up: list[nn.Module] = [nn.Conv2d(size, widths[-1], 3, padding=1)]
        for width, wider in pairwise(widths):
            down += [ResidualBlock(width) for _ in range(blocks)]
            down.append(nn.Conv2d(width, wider, 2, stride=2))
        down += [ResidualBlock(widths[-1]) for _ in range(blocks)]
        for wider, width in pairwise(reversed(widths)):
            up += [ResidualBlock(wider) for _ in range(blocks)]
            up.append(nn.ConvTranspose2d(wider, width, 2, stride=2))
        up += [ResidualBlock(widths[0]) for _ in range(blocks)]
        self.down = nn.Sequential(*down, nn.Conv2d(widths[-1], size, 1))
        self.up = nn.Sequential(*up, nn.Conv2d(widths[0], 4, 3, padding=1), nn.PixelShuffle(2))

    def encode(self, x: Images) -> Latents:
        """Return the latents before quantisation."""
        return self.down(x)

    def decode(self, z: Latents) -> Images:
        """Quantise latents and return their image."""
        return self.up(self.quantizer(z))

    def forward(self, x: Images) -> Images:
        """Return the reconstruction."""
        return self.decode(self.encode(x))


def autoencoder_loss(network: nn.Module, batch: Images) -> Losses:
    """Return L1 + L2 + commitment; the reported loss is the mean squared error."""
    assert isinstance(network, LatentAutoencoder)
    with mixed_precision(batch.device):
        z = network.encode(batch)
    z = z.float()
    quantized = network.quantizer(z)
    with mixed_precision(batch.device):
        made = network.up(quantized)
    error = made.float() - batch
    squared = error.square().mean()
    commitment = (z - quantized.detach()).square().mean()
    return Losses(error.abs().mean() + squared + COMMITMENT * commitment, squared)


def _fixed(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)
