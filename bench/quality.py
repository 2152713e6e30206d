"""Quality measures of demo and benchmark: PSNR, SSIM and contrast of lesions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32

from stillscan.models.metrics.image_quality import ssim

Slice = Float32[np.ndarray, "row column"]
Series = Float32[np.ndarray, "slice row column"]
BACKGROUND = 0.03  # share of the largest true value: lower values are air


@dataclass(frozen=True)
class Quality:
    """Similarity of images to the truth.

    Attributes:
        psnr: dB, of all pixels; the peak is the largest true value of the series.
        psnr_head: dB, of the pixels that hold tissue.
        ssim: mean structural similarity of the slices (Gaussian window of 11 pixels).
        lesion_contrast: contrast of lesions to what surrounds them, as a share of the true one;
            NaN where nothing is known of lesions.
    """

    psnr: float
    psnr_head: float
    ssim: float
    lesion_contrast: float


def quality(images: Series, truth: Series, lesions: Series | None = None) -> Quality:
    """Compare images with the truth; `lesions` is the share of lesion per pixel."""
    peak = float(truth.max())
    error = (images - truth) ** 2
    tissue = truth > BACKGROUND * peak
    similarities = [
        ssim(torch.from_numpy(image), torch.from_numpy(true), peak)
        for image, true in zip(images, truth, strict=True)
    ]
    kept = float("nan")
    if lesions is not None:
        kept = _contrast(images, lesions) / _contrast(truth, lesions)
    return Quality(
        psnr=_decibel(peak, float(error.mean())),
        psnr_head=_decibel(peak, float(error[tissue].mean())),
        ssim=float(np.mean(similarities)),
        lesion_contrast=kept,
    )


def _decibel(peak: float, mean_square: float) -> float:
    return float(10 * np.log10(peak**2 / mean_square)) if mean_square > 0 else float("inf")


def _contrast(images: Series, lesions: Series) -> float:
    """Return the mean of the lesions minus the median of the rings around them."""
    inside = lesions > 0.6
    near = np.zeros_like(inside)
    for down in range(-4, 5):
        for right in range(-4, 5):
            near |= np.roll(lesions > 0.05, (down, right), axis=(1, 2))
    ring = near & (lesions < 0.01)
    return float(images[inside].mean() - np.median(images[ring]))
