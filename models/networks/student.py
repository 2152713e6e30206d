"""The student: a compact convolutional network that predicts the noise in one step."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stillscan.models.networks.unet import PlainUNet
from stillscan.models.noise.profile import CORRELATION_LAGS

Image = Float[Tensor, "batch 1 height width"]
Seen = Float[Tensor, "batch channel half_height half_width"]
Planes = Float[Tensor, "batch 4 half_height half_width"]
Correlation = Float[Tensor, "batch lag"]

LOCAL_SIZE = 15  # pixels
WIDE_SIZE = 7  # cells of 8 pixels
COARSEST = 8  # pixels: the input sees the image at this resolution too
SQUASH = 8.0  # in sigma: the input is linear well below this, logarithmic above
LOG_VARIANCE_RANGE = (-10.0, 2.0)  # of the error, in sigma^2
CONVOLUTIONS = 2  # of 3 x 3, in a residual block
BOUND = 6.0  # in sigma: no pixel is changed by more, whatever the weights are


class StudentNetwork(nn.Module):
    """Predicts the noise in an image from the image, its noise level and its correlation.

    The input is independent of the image's scale: the difference from the local mean in units of
    the local sigma, squashed (asinh) so that strong edges do not cost bfloat16 its precision, on
    four half-resolution planes (pixel-unshuffle); the local mean against a wider one; the change of
    the noise level; the correlation coefficients at `CORRELATION_LAGS`. What it returns is
    bounded by `BOUND` sigma.

    Args:
        widths: channels at half resolution and below.
        middle_blocks: residual blocks at the coarsest resolution.
    """

    def __init__(self, widths: tuple[int, ...] = (48, 96, 192), middle_blocks: int = 2) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.middle_blocks = middle_blocks
        self.multiple = max(2 ** len(widths), COARSEST)
        self.body = PlainUNet(4 + 2 + len(CORRELATION_LAGS), self.widths, middle_blocks)
        self.noise = nn.Conv2d(self.widths[0], 4, 3, padding=1)
        self.log_variance = nn.Sequential(
            nn.Conv2d(self.widths[0], 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 3, padding=1)
        )
        nn.init.zeros_(self.noise.weight)  # begins as the identity denoiser
        nn.init.zeros_(self.noise.bias)  # type: ignore[arg-type]

    def forward(self, image: Image, sigma: Image, correlation: Correlation) -> tuple[Image, Image]:
        """Predict the noise in `image` in units of `sigma`, and the log variance of its error.

        The second output uses the features of the first but passes no gradient to them, so that it
        cannot worsen the mean.

        Args:
            image: noisy image, any unit; height and width divisible by `multiple`.
            sigma: standard deviation of the noise at each pixel, same unit, above 0.
            correlation: correlation of the noise at CORRELATION_LAGS.
        """
        return bounded(*self.planes(network_input(image, sigma, correlation)))

    def planes(self, seen: Seen) -> tuple[Planes, Planes]:
        """Compute the four planes of the noise and of its log variance, before their bounds."""
        features = self.body(seen)
        return self.noise(features), self.log_variance(features.detach())

    @property
    def reach(self) -> int:
        """How far an output depends on the input, in half-resolution pixels.

        Counted from the edge of the output's cell at the coarsest level, where tiles meet.
        """
        beyond = CONVOLUTIONS  # for the log variance
        for _ in self.widths[1:]:
            beyond = math.ceil((beyond + CONVOLUTIONS) / 2)
        beyond += CONVOLUTIONS * self.middle_blocks
        for _ in self.widths[1:]:
            beyond = 2 * beyond + CONVOLUTIONS
        return beyond + 1


def bounded(noise: Planes, log_variance: Planes) -> tuple[Image, Image]:
    """Bring the planes to full resolution and bound them, float32."""
    full = F.pixel_shuffle(noise, 2).float()
    spread = F.pixel_shuffle(log_variance, 2).float()
    return BOUND * torch.tanh(full / BOUND), spread.clamp(*LOG_VARIANCE_RANGE)


def network_input(
    image: Image, sigma: Image, correlation: Correlation
) -> Float[Tensor, "batch channel half_height half_width"]:
    """Compute the network's input; float32 throughout, so that no bit of the image is rounded.

    All operations are local (no mean over the whole image), so that tiles get the same input.
    """
    local, local_sigma = box_mean(image, LOCAL_SIZE), box_mean(sigma, LOCAL_SIZE)
    detail = squash((image - local) / sigma)
    half = F.avg_pool2d(torch.cat([local, sigma, local_sigma], 1), 2)
    wide = box_mean(F.avg_pool2d(image, COARSEST), WIDE_SIZE)
    wide = F.interpolate(wide, scale_factor=COARSEST // 2, mode="bilinear")
    context = squash((half[:, :1] - wide) / half[:, 1:2])
    level = (half[:, 1:2] / half[:, 2:]).log()
    constants = correlation[:, :, None, None].expand(-1, -1, *half.shape[-2:])
    return torch.cat([F.pixel_unshuffle(detail, 2), context, level, constants], 1)


def squash(x: Tensor) -> Tensor:
    """Compress: linear near 0, logarithmic beyond SQUASH: SQUASH * asinh(x / SQUASH), to 3e-6.

    Computed with the logarithm, in a fifth of the time of `torch.asinh`.
    """
    size = x.abs() / SQUASH
    return (SQUASH * (size + (size.square() + 1).sqrt()).log()).copysign(x)


def box_mean(image: Image, size: int) -> Image:
    """Average over a square of `size` (odd) pixels; only pixels inside the image are counted."""
    height, width = image.shape[-2:]
    lines = (torch.ones(length, device=image.device) for length in (height, width))
    rows, columns = (running_sum(line, size, 0) for line in lines)
    return running_sum(running_sum(image, size, -2), size, -1) / (rows[:, None] * columns)


def running_sum(values: Float[Tensor, "*shape"], size: int, axis: int) -> Float[Tensor, "*shape"]:
    """Sum the `size` (odd) values around each value along one axis, zero beyond the ends.

    Sums of 1, 2, 4, 8 neighbours are combined for any `size` in a few passes over memory. Only
    neighbours are added, so that a part of an image gives the same bits as the whole.
    """
    length, reach = values.shape[axis], size // 2
    ends = list(values.shape)
    ends[axis] = reach
    zeros = values.new_zeros(ends)
    run, width, start = torch.cat([zeros, values, zeros], axis), 1, 0
    total = None
    while width <= size:
        if size & width:
            part = run.narrow(axis, start, length)
            total = part if total is None else total + part
            start += width
        if 2 * width <= size:
            shorter = run.shape[axis] - width
            run = run.narrow(axis, 0, shorter) + run.narrow(axis, width, shorter)
        width *= 2
    assert total is not None, "a size of at least 1"
    return total
