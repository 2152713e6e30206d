"""Pass-through of low spatial frequencies: what is large and faint is never taken away.

    x' = x_hat + g * (y - x_hat)        y: noisy, x_hat: estimate, g: Gaussian of s mm

A network that takes a large, faint structure for noise takes away its low frequencies; they are
put back. At frequency f the result differs from the source by (1 - G(f)) times the change that the
network wanted, G(f) = exp(-2 pi^2 s^2 f^2): smoothed with a Gaussian of 3 s, by at most 4 % of it.
A disc of diameter 4 s keeps at least half of its contrast whatever the network does, and no more
than half of one that a network paints in remains. The price is noise of low frequency.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from stillscan.models.noise.noise_free import exact_places

# Standard deviation in mm by modality, measured on CT (docs/method.md). In MR and radiographs the
# networks keep what is faint themselves, and the rule would cost more noise than it gains.
SCALE_MM = {"CT": 1.5}
SMALLEST_PX, LARGEST_PX = 1.2, 8.0
REACH = 4.0  # standard deviations: what lies beyond is 6e-5 of the kernel

Planes = Float32[np.ndarray, "slice row column"]


@dataclass(frozen=True)
class PassThrough:
    """The Gaussian of one series.

    Attributes:
        scale_mm: its standard deviation, as the modality asks for it.
        scale_px: the same down and across, in pixels, within SMALLEST_PX and LARGEST_PX.
    """

    scale_mm: float
    scale_px: tuple[float, float]

    @classmethod
    def of(cls, modality: str, spacing_mm: tuple[float, float]) -> PassThrough | None:
        """Return the rule for a series, None where its modality has none.

        Args:
            modality: DICOM Modality.
            spacing_mm: between rows, between columns (PixelSpacing).
        """
        scale = SCALE_MM.get(modality)
        if scale is None:
            return None
        down, across = (min(max(scale / each, SMALLEST_PX), LARGEST_PX) for each in spacing_mm)
        return cls(scale, (down, across))

    def apply(self, noisy: Planes, estimate: Planes) -> Planes:
        """Put the low frequencies of the change back; places without noise stay as they are.

        Args:
            noisy: whole slices, any unit.
            estimate: the same, denoised.
        """
        change = noisy - estimate
        kept = self.smoothed(torch.from_numpy(change)).numpy()
        passed = (estimate + kept).astype(np.float32)
        for plane, source, unchanged in zip(passed, noisy, change == 0, strict=True):
            if unchanged.any():
                exact = unchanged & exact_places(torch.from_numpy(source)).numpy()
                plane[exact] = source[exact]
        return passed

    def smoothed(
        self, planes: Float[Tensor, "slice row column"]
    ) -> Float[Tensor, "slice row column"]:
        """Convolve with the Gaussian, mirrored at the edges."""
        for axis, scale in zip((1, 2), self.scale_px, strict=True):
            planes = _smoothed(planes.movedim(axis, 2), scale).movedim(2, axis)
        return planes

    def noise_share(self, acf: Float[np.ndarray, "lag lag"]) -> float:
        """Standard deviation of the noise that passes, over that of the noise.

        Args:
            acf: correlation coefficients of the noise, lag (0, 0) in the middle.
        """
        lags = np.arange(len(acf)) - len(acf) // 2
        down, across = (
            np.exp(-(lags**2) / (4 * s**2)) / math.sqrt(4 * math.pi * s**2) for s in self.scale_px
        )
        return math.sqrt(min(max(float(down @ acf @ across), 0.0), 1.0))


def _smoothed(
    planes: Float[Tensor, "slice line sample"], scale: float
) -> Float[Tensor, "slice line sample"]:
    """Convolve the last axis with a Gaussian of `scale` samples, mirrored at both ends."""
    length = planes.shape[2]
    reach = min(math.ceil(REACH * scale), length)
    at = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-(at**2) / (2 * scale**2))
    kernel /= kernel.sum()
    mirrored = torch.cat(
        [planes[..., :reach].flip(2), planes, planes[..., length - reach :].flip(2)], 2
    )
    rows = mirrored.reshape(-1, 1, mirrored.shape[2])
    return F.conv1d(rows, kernel[None, None]).reshape(planes.shape)
