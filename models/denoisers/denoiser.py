"""One signature for every denoiser, from the identity to the sampled diffusion model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from stillscan.models.noise.profile import NoiseProfile

Image = Float[Tensor, "batch 1 height width"]


@dataclass(frozen=True)
class Estimate:
    """What a denoiser says of an image, in the image's own unit.

    Attributes:
        mean: the estimate of the clean image.
        spread: standard deviation of its error per pixel; None where a denoiser has none.
    """

    mean: Image
    spread: Image | None = None


@runtime_checkable
class Denoiser(Protocol):
    """`denoise(image, noise) -> Estimate`: all that the pipeline knows of a method."""

    def denoise(self, image: Image, noise: NoiseProfile) -> Estimate:
        """Estimate the clean image; `noise` is in the image's own unit."""
        ...


@runtime_checkable
class Seeded(Protocol):
    """A denoiser that draws random numbers; who calls it says which."""

    def seeded(self, seeds: Sequence[int]) -> Denoiser:
        """The same denoiser with one seed for each image of the next batch."""
        ...


class IdentityDenoiser:
    """Gives the image back as it is: the control for everything that is not denoising."""

    def denoise(self, image: Image, noise: NoiseProfile) -> Estimate:
        """Return `image` itself."""
        return Estimate(mean=image)
