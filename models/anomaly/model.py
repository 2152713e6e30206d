"""The protocol of anomaly models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "batch 1 height width"]


@dataclass(frozen=True)
class AnomalyEstimate:
    """What an anomaly model finds in a batch of images.

    Attributes:
        score: -log10 of the share of healthy pixels that are at least as unusual: 0 .. 4.
        healthy: the image as the model would expect it: invented, never to be read as the patient.
        likeness: deviations by which each image lies above healthy ones; high is unlike.
    """

    score: Images
    healthy: Images
    likeness: Float[Tensor, " batch"]


class AnomalyModel(Protocol):
    """Assesses images of the bundle's size and intensity scale."""

    def assess(self, images: Images, seed: int) -> AnomalyEstimate:
        """Return scores, healthy images and likeness; the same seed gives the same result."""
        ...
