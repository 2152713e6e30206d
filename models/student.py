"""The student: one compact convolutional network, told the noise, that predicts it in one step."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models.blocks import PlainUNet
from models.denoiser import Estimate
from models.noise_profile import CORRELATION_LAGS, NoiseProfile

Image = Float[Tensor, "batch 1 height width"]
Correlation = Float[Tensor, "batch lag"]

LOCAL_SIZE = 15  # pixels
WIDE_SIZE = 7  # cells of 8 pixels
SQUASH = 8.0  # in sigma: the input is linear well below this, logarithmic above
LOG_VARIANCE_RANGE = (-10.0, 2.0)  # of the error, in sigma^2
BOUND = 6.0  # in sigma: no pixel is changed by more, whatever the weights say


class StudentNetwork(nn.Module):
    """Predicts the noise of an image from the image, its noise level and its correlation.

    What the network sees is free of the image's scale: the difference from the local mean in units
    of the local sigma, squashed (asinh) so that strong edges do not cost bfloat16 its precision, on
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
        self.multiple = 2 ** len(widths)
        self.body = PlainUNet(4 + 2 + len(CORRELATION_LAGS), self.widths, middle_blocks)
        self.noise = nn.Conv2d(self.widths[0], 4, 3, padding=1)
        self.log_variance = nn.Sequential(
            nn.Conv2d(self.widths[0], 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 3, padding=1)
        )
        nn.init.zeros_(self.noise.weight)  # begins as the identity denoiser
        nn.init.zeros_(self.noise.bias)  # type: ignore[arg-type]

    def forward(self, image: Image, sigma: Image, correlation: Correlation) -> tuple[Image, Image]:
        """The noise in `image` in units of `sigma`, and the log variance of that estimate's error.

        The second output reads the features of the first but does not shape them: what it learns
        cannot cost the mean anything.

        Args:
            image: noisy image, any unit; height and width divisible by `multiple`.
            sigma: standard deviation of the noise at each pixel, same unit, above 0.
            correlation: of the noise at CORRELATION_LAGS.
        """
        seen = network_input(image, sigma, correlation)
        features = self.body(seen)
        noise = F.pixel_shuffle(self.noise(features), 2).float()
        log_variance = F.pixel_shuffle(self.log_variance(features.detach()), 2).float()
        return BOUND * torch.tanh(noise / BOUND), log_variance.clamp(*LOG_VARIANCE_RANGE)


def network_input(
    image: Image, sigma: Image, correlation: Correlation
) -> Float[Tensor, "batch channel half_height half_width"]:
    """What the network sees; float32 throughout, so that no bit of the image is rounded.

    Everything is local (no mean over the whole image), so a tile sees what the whole image sees.
    """
    local, local_sigma = box_mean(image, LOCAL_SIZE), box_mean(sigma, LOCAL_SIZE)
    detail = squash((image - local) / sigma)
    half = F.avg_pool2d(torch.cat([local, sigma, local_sigma], 1), 2)
    wide = box_mean(F.avg_pool2d(image, 8), WIDE_SIZE)
    wide = F.interpolate(wide, scale_factor=4, mode="bilinear")
    context = squash((half[:, :1] - wide) / half[:, 1:2])
    level = (half[:, 1:2] / half[:, 2:]).log()
    constants = correlation[:, :, None, None].expand(-1, -1, *half.shape[-2:])
    return torch.cat([F.pixel_unshuffle(detail, 2), context, level, constants], 1)


def squash(x: Tensor) -> Tensor:
    """Linear near 0, logarithmic beyond `SQUASH`."""
    return SQUASH * torch.asinh(x / SQUASH)


def box_mean(image: Image, size: int) -> Image:
    """Mean over a square of `size` (odd) pixels; only pixels inside the image are counted."""
    rows = F.avg_pool2d(image, (size, 1), 1, (size // 2, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, size), 1, (0, size // 2), count_include_pad=False)


class StudentDenoiser:
    """The student network behind the `Denoiser` protocol: one forward pass, residual in float32."""

    def __init__(
        self,
        network: StudentNetwork,
        device: torch.device | str = "cpu",
        precision: torch.dtype = torch.bfloat16,
    ) -> None:
        self.device = torch.device(device)
        self.precision = precision
        self.network = network.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    @torch.inference_mode()
    def denoise(self, image: Image, noise: NoiseProfile) -> Estimate:
        """Estimate the clean image; `noise` is in the image's own unit."""
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image.to(self.device), self.network.multiple)
        sigma = noise.sigma_map(padded)
        correlation = noise.correlation().to(self.device).expand(len(image), -1)
        autocast = torch.autocast(
            self.device.type, self.precision, enabled=self.precision != torch.float32
        )
        with autocast:
            residual, log_variance = self.network(padded, sigma, correlation)
        mean = padded - sigma * residual
        spread = sigma * (0.5 * log_variance).exp()
        return Estimate(
            mean=mean[..., :height, :width].to(image.device),
            spread=spread[..., :height, :width].to(image.device),
        )


def pad_to_multiple(
    image: Image, multiple: int
) -> Float[Tensor, "batch 1 padded_height padded_width"]:
    """Continue the image below and right: mirrored, or repeated where it is too small."""
    height, width = image.shape[-2:]
    down = math.ceil(height / multiple) * multiple - height
    right = math.ceil(width / multiple) * multiple - width
    mode = "reflect" if down < height and right < width else "replicate"
    return F.pad(image, (0, right, 0, down), mode=mode) if down or right else image
