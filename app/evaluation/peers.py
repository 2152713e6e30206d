"""Denoisers that users have today: scikit-image's, which are blind, and BM3D with oracle noise.

scikit-image comes with the extra `evaluate`. BM3D is licensed for non-commercial use and is not a
dependency: it is included if the user has installed it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from stillscan.app.evaluation.noise_cases import NoiseCase
from stillscan.models.denoisers.denoiser import Estimate
from stillscan.models.noise.profile import NoiseProfile
from stillscan.operators.errors import SettingsError

Slice = Float32[np.ndarray, "row column"]
Image = Float[Tensor, "batch 1 height width"]

DARKEST = 1e-3  # share of the intensity range: smaller values have no useful logarithm
TV_WEIGHT = 0.75  # of sigma: the best on a training slice is 0.6 at 6/255 and 0.9 at 15/255


class PackageMissingError(SettingsError):
    """A Python package that the command needs is not installed."""

    reason = "package-missing"


def need(package: str, how: str) -> None:
    """Make sure that a package can be imported.

    Raises:
        PackageMissingError: if it cannot; the message says how to install it.
    """
    if not is_installed(package):
        raise PackageMissingError(f"package {package} is not installed: {how}")


def is_installed(package: str) -> bool:
    """Return whether a package can be imported."""
    return find_spec(package) is not None


class SliceBySlice:
    """Applies a function to each slice, as a `Denoiser`; the noise profile is ignored."""

    def __init__(self, function: Callable[[Slice], Slice]) -> None:
        self.function = function

    def denoise(self, image: Image, noise: NoiseProfile) -> Estimate:
        """Denoise each slice on its own."""
        slices = [self.function(plane) for plane in image[:, 0].numpy()]
        return Estimate(torch.from_numpy(np.stack(slices).astype(np.float32))[:, None])


def nlm(image: Slice) -> Slice:
    """Non-local means of scikit-image as its documentation recommends, with its own sigma."""
    from skimage.restoration import denoise_nl_means, estimate_sigma

    sigma = float(estimate_sigma(image))
    cleaned: Slice = denoise_nl_means(
        image, h=0.8 * sigma, sigma=sigma, patch_size=5, patch_distance=6, fast_mode=True
    )
    return cleaned


def total_variation(image: Slice) -> Slice:
    """Total variation (Chambolle 2004) of scikit-image, weight from its own estimate of sigma."""
    from skimage.restoration import denoise_tv_chambolle, estimate_sigma

    sigma = float(estimate_sigma(image))
    cleaned: Slice = denoise_tv_chambolle(image, weight=TV_WEIGHT * sigma) if sigma > 0 else image
    return cleaned


def wavelet(image: Slice) -> Slice:
    """Wavelet shrinkage of scikit-image (BayesShrink, db2), with its own estimate of sigma."""
    from skimage.restoration import denoise_wavelet

    cleaned: Slice = denoise_wavelet(image, method="BayesShrink", mode="soft", wavelet="db2")
    return cleaned


def bm3d_oracle(case: NoiseCase) -> SliceBySlice | None:
    """BM3D with the true noise; None for Rician noise, which it cannot use.

    White: sigma. Correlated: the spectrum. Poisson: Anscombe's transform and its exact unbiased
    inverse (Makitalo and Foi 2011, closed form). Gamma: the logarithm, with its bias removed.
    """
    match case.family:
        case "gaussian":
            return SliceBySlice(lambda image: _bm3d(image, case.strength))
        case "correlated":
            return SliceBySlice(lambda image: _bm3d(image, _density(case, image.shape)))
        case "poisson":
            return SliceBySlice(lambda image: _of_counts(image, case.strength))
        case "gamma":
            return SliceBySlice(lambda image: _of_logarithm(image, case.strength))
    return None


def _bm3d(image: Slice, noise: float | np.ndarray) -> Slice:
    """Run BM3D with its default profile; `noise` is sigma or the power spectral density."""
    if not hasattr(np, "trapz"):
        setattr(np, "trapz", np.trapezoid)  # noqa: B010
    return np.asarray(import_module("bm3d").bm3d(image, noise), np.float32)


def _density(case: NoiseCase, shape: tuple[int, ...]) -> np.ndarray:
    height, width = shape
    spectrum = case.spectrum(height, width).numpy()
    return np.asarray(spectrum * case.strength**2 * height * width)


def _of_counts(image: Slice, intensity: float) -> Slice:
    z = 2 * np.sqrt(np.maximum(image * intensity, 0) + 3 / 8)
    top = float(z.max())
    smooth = _bm3d((z / top).astype(np.float32), 1 / top) * top
    d = np.maximum(smooth, 2 * math.sqrt(3 / 8))  # the value for zero counts
    root = math.sqrt(3 / 2)
    counts = d**2 / 4 + root / (4 * d) - 11 / (8 * d**2) + 5 * root / (8 * d**3) - 1 / 8
    return (np.maximum(counts, 0) / intensity).astype(np.float32)


def _of_logarithm(image: Slice, shape: float) -> Slice:
    alpha = torch.tensor(shape, dtype=torch.float64)
    sigma = float(torch.polygamma(1, alpha).sqrt())
    bias = float(torch.digamma(alpha) - alpha.log())
    z = np.log(np.maximum(image, DARKEST))
    low, span = float(z.min()), max(float(np.ptp(z)), 1e-6)
    smooth = _bm3d(((z - low) / span).astype(np.float32), sigma / span) * span + low
    return np.where(image <= DARKEST, image, np.exp(smooth - bias)).astype(np.float32)
