"""The interface of every denoiser, from the identity to the sampled diffusion model."""

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
    """The result of a denoiser, in the image's own unit.

    Attributes:
        mean: the estimate of the clean image.
        spread: standard deviation of its error per pixel; None if the denoiser gives none.
    """

    mean: Image
    spread: Image | None = None


@runtime_checkable
class Denoiser(Protocol):
    """The interface of every method: `denoise(image, noise) -> Estimate`."""

    def denoise(self, image: Image, noise: NoiseProfile) -> Estimate:
        """Estimate the clean image; `noise` is in the image's own unit."""
        ...


@runtime_checkable
class Seeded(Protocol):
    """A denoiser that draws random numbers from seeds that the caller chooses."""

    def seeded(self, seeds: Sequence[int]) -> Denoiser:
        """Return a copy of the denoiser with one seed for each image of the next batch."""
        ...


class IdentityDenoiser:
    """Returns the image unchanged: the control for every step other than denoising."""

    def denoise(self, image: Image, noise: NoiseProfile) -> Estimate:
        """Return `image` itself."""
        return Estimate(mean=image)
