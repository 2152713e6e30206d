"""Stage 1: a network that predicts each pixel from its surroundings, never from itself.

Noise that does not reach beyond `radius` pixels cannot be predicted from outside it, so the network
learns E[x | surroundings] from noisy images alone.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

Planes = Float[Tensor, "batch 1 height width"]
Features = Float[Tensor, "batch channel height width"]

LOG_VARIANCE_RANGE = (-6.0, 8.0)  # of the prediction's error, in sigma^2


class RingConvolution(nn.Module):
    """A convolution of half-width radius + 1 that ignores max(|dx|, |dy|) <= radius.

    The mask is a buffer that is applied at every call; the masked weights are never used.
    """

    mask: Tensor

    def __init__(self, channels: int, width: int, radius: int) -> None:
        super().__init__()
        self.radius = radius
        size = 2 * radius + 3
        self.convolution = nn.Conv2d(channels, width, size, padding=radius + 1)
        mask = torch.ones(size, size)
        mask[1:-1, 1:-1] = 0
        self.register_buffer("mask", mask)

    def forward(
        self, image: Float[Tensor, "batch plane height width"]
    ) -> Float[Tensor, "batch feature height width"]:
        """Compute `width` features of the ring around each pixel."""
        weight, bias = self.convolution.weight * self.mask, self.convolution.bias
        return nn.functional.conv2d(image, weight, bias, padding=self.radius + 1)


class DilatedBlock(nn.Module):
    """A residual block: `x + 1x1(relu(dilated 3x3(relu(x))))`."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.pointwise = nn.Conv2d(width, width, 1)

    def forward(self, x: Features) -> Features:
        """Add features of the surroundings at this dilation."""
        return x + self.pointwise(self.spatial(x.relu()).relu_())


class BlindSpotNetwork(nn.Module):
    """Predicts mean and variance of each pixel without the square of `radius` around it.

    Two branches of dilated blocks behind a ring convolution, dilations 2r + 2 and 2r + 3. A chain
    of offsets that begins on the ring, |d| = r + 1 in one axis, and goes on in multiples of 2r + 2
    (or 2r + 3) keeps |d| >= r + 1 in that axis: no pixel of the hidden square is ever used. The
    branches are fused by 1x1 convolutions. No normalisation and no attention: both use the whole
    image.

    Train it in the default memory format where bfloat16 is computed: with channels_last, oneDNN's
    bfloat16 gradient of a dilated convolution is NaN on CPUs (torch 2.13). In float32 it is right,
    and up to twice as fast.

    Args:
        radius: r; noise correlated over at most r pixels is hidden completely. 0 .. 4.
        width: number of channels of each branch.
        blocks: number of dilated blocks of each branch.
    """

    def __init__(self, radius: int, width: int = 40, blocks: int = 4) -> None:
        super().__init__()
        self.radius = radius
        self.width = width
        self.blocks = blocks
        self.branches = nn.ModuleList(
            nn.Sequential(
                RingConvolution(2, width, radius),
                *(DilatedBlock(width, dilation) for _ in range(blocks)),
            )
            for dilation in (2 * radius + 2, 2 * radius + 3)
        )
        self.fusion = nn.Sequential(
            nn.ReLU(), nn.Conv2d(2 * width, 2 * width, 1), nn.ReLU(), nn.Conv2d(2 * width, width, 1)
        )
        self.mean = nn.Conv2d(width, 1, 1)
        self.log_variance = nn.Sequential(
            nn.Conv2d(width + 1, width, 1), nn.ReLU(), nn.Conv2d(width, 1, 1)
        )

    def forward(self, image: Planes, level: Float[Tensor, " batch"]) -> tuple[Planes, Planes]:
        """Predict the mean of each pixel and the log variance of its error in units of level^2.

        The second output uses the features of the first but passes no gradient to them.

        Args:
            image: noisy, on about [0, 1]. It enters pixel by pixel: a local mean or a local noise
                level would carry a pixel's own value to its neighbours.
            level: the noise's typical standard deviation in each image, estimated beforehand.
        """
        known = level.log()[:, None, None, None].expand_as(image) / 4 + 1
        seen = torch.cat([2 * image - 1, known], 1)
        features = self.fusion(torch.cat([branch(seen) for branch in self.branches], 1)).relu()
        mean = (self.mean(features).float() + 1) / 2
        # the features need no noise level to predict the mean; the variance does
        informed = torch.cat([features.detach(), known], 1)
        log_variance = self.log_variance(informed).float()
        return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)


def with_centre(
    mean: Planes, variance: Planes, image: Planes, noise_variance: Planes
) -> tuple[Planes, Planes]:
    """Combine prediction and pixel: `(mu sigma^2 + y s^2) / (s^2 + sigma^2)`, and its variance."""
    total = variance + noise_variance
    return (
        (mean * noise_variance + image * variance) / total,
        variance * noise_variance / total,
    )
