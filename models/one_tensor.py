"""The student with all its inputs in one tensor, as MONAI's bundle tools call networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from stillscan.models.denoisers.student import pad_to_multiple
from stillscan.models.networks.student import StudentNetwork
from stillscan.models.noise.noise_free import noise_everywhere
from stillscan.models.noise.profile import CORRELATION_LAGS, NoiseProfile

CHANNELS = (
    "noisy image",
    "standard deviation of its noise",
    *(f"correlation of its noise at lag ({dy}, {dx}) px" for dy, dx in CORRELATION_LAGS),
)
ESTIMATE = ("clean image", "standard deviation of its error")

Planes = Float[Tensor, "batch channel height width"]
Estimates = Float[Tensor, "batch 2 height width"]


class OneTensorStudent(StudentNetwork):
    """A `StudentNetwork` with the same weights whose inputs are channels of one tensor.

    Input: CHANNELS. Output: ESTIMATE, in the image's unit. Height and width must be divisible by
    `multiple`. Every channel lies on the pixel grid of the image (the correlation is constant), so
    patches of the tensor are patches of the image and MONAI's sliding windows may be used.
    """

    def __init__(self, widths: Sequence[int] = (48, 96, 192), middle_blocks: int = 2) -> None:
        super().__init__(tuple(widths), middle_blocks)

    def forward(self, planes: Planes) -> Estimates:  # type: ignore[override]
        """Estimate the clean image and the standard deviation of its error."""
        image, sigma = planes[:, :1], planes[:, 1:2]
        noise, log_variance = super().forward(image, sigma, planes[:, 2:, 0, 0])
        return torch.cat([image - sigma * noise, sigma * (0.5 * log_variance).exp()], 1)


def input_planes(
    image: Float[Tensor, "height width"], noise: NoiseProfile, multiple: int
) -> Float[Tensor, "channel padded_height padded_width"]:
    """Stack an image and its noise as the input channels of `OneTensorStudent`.

    The result is padded below and to the right, and holds noise where the image is constant.

    Args:
        image: noisy image.
        noise: its noise, in the same unit.
        multiple: height and width of the result are divisible by it.
    """
    padded = pad_to_multiple(noise_everywhere(image, noise)[None, None], multiple)
    constant = noise.correlation()[None, :, None, None].expand(-1, -1, *padded.shape[-2:])
    return torch.cat([padded, noise.sigma_map(padded), constant], 1)[0]
