"""Places that hold no noise: air set to one value, collimation, padding, saturation.

Networks learn from images that hold noise everywhere. Where a place holds one exact value, they
take the noise beside it for structure and leave it there. So such places are filled with noise of
the measured law before a network looks, and get their own values back afterwards.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from stillscan.models.noise.profile import NoiseProfile, sigma_at, smooth
from stillscan.models.noise.synthesis import spectrum_of

Plane = Float[Tensor, "height width"]
Places = Bool[Tensor, "height width"]

SHARED = 0.01  # of the pixels of a slice: who holds its lowest or highest value is no accident
FRAME = 256  # pixels: after which the noise that fills repeats, far more than a network sees
SEED = 17
BESIDE = (0.399, 0.242, 0.054, 0.004)  # Gaussian of 1 px: what continues beyond a border
FEW = 0.05  # of the pixels beside: with fewer, nothing is continued


def exact_places(image: Plane) -> Places:
    """Pixels that keep their value: constant places, no signal (0), and a slice's shared extremes.

    An extreme that many pixels share was set or cut off; noise does not reach one value so often.
    """
    exact = constant_places(image) | (image == 0)
    for extreme in torch.aminmax(image):
        held = image == extreme
        if int(held.sum()) > max(SHARED * image.numel(), 1):
            exact |= held
    return exact


def constant_places(image: Plane) -> Places:
    """Pixels of the squares of 3 x 3 pixels that hold one value."""
    constant = torch.zeros(image.shape, dtype=torch.bool)
    if min(image.shape) < 3:
        return constant
    along = image[:, 1:] == image[:, :-1]
    centres = along[:, 1:] & along[:, :-1]
    down = image[1:, 1:-1] == image[:-1, 1:-1]
    centres = centres[2:] & centres[1:-1] & centres[:-2] & down[1:] & down[:-1]
    if centres.any():
        height, width = centres.shape
        wide = torch.zeros(height, width + 2, dtype=torch.bool)
        for shift in range(3):
            wide[:, shift : shift + width] |= centres
        for shift in range(3):
            constant[shift : shift + height] |= wide
    return constant


def noise_everywhere(image: Plane, noise: NoiseProfile) -> Plane:
    """The image with noise of the measured law where it is constant.

    A little of what lies beside a constant place is continued into it: its border is no structure.
    """
    places = constant_places(image)
    if not places.any():
        return image
    base = _continued(image, places)
    height, width = image.shape
    real, imaginary = (
        field.repeat(-(-height // FRAME), -(-width // FRAME))[:height, :width]
        for field in unit_noise(noise)
    )
    if noise.places is not None:
        factor = noise.places.over(height, width)
        real, imaginary = factor * real, factor * imaginary
    if noise.family == "rician":
        sigma = max(noise.sigmas)
        filled = torch.hypot(base + sigma * real, sigma * imaginary)
    else:
        level = smooth(base[None, None])[0, 0]
        filled = base + sigma_at(level, noise.levels, noise.sigmas) * real
    return torch.where(places, filled, image)


def _continued(image: Plane, places: Places) -> Plane:
    """Constant places with the mean of the other pixels near them, which fades within 3 pixels."""
    others = (~places).float()
    weight, total = _beside(others), _beside(others * image)
    fading = (weight / FEW).clamp(max=1)
    return torch.lerp(image, total / weight.clamp(min=1e-6), fading).where(places, image)


def _beside(image: Plane) -> Plane:
    reach = len(BESIDE) - 1
    for axis in (0, 1):
        length = image.shape[axis]
        margins = (0, 0, reach, reach) if axis == 0 else (reach, reach, 0, 0)
        padded = F.pad(image, margins)
        image = BESIDE[0] * padded.narrow(axis, reach, length)
        for shift, tap in enumerate(BESIDE[1:], start=1):
            for start in (reach - shift, reach + shift):
                image.add_(padded.narrow(axis, start, length), alpha=tap)
    return image


def unit_noise(noise: NoiseProfile) -> tuple[Plane, Plane]:
    """Two frames of FRAME x FRAME pixels of noise of unit variance with this correlation."""
    return _unit_noise(tuple(noise.acf.astype(np.float64).ravel().tolist()))


@lru_cache(maxsize=4)
def _unit_noise(acf: tuple[float, ...]) -> tuple[Plane, Plane]:
    """Two frames of noise of unit variance with these coefficients, the same every time.

    By numpy: the application loads torch without its random numbers.
    """
    side = round(len(acf) ** 0.5)
    spectrum = spectrum_of(torch.tensor(acf).float().reshape(side, side), FRAME, FRAME).numpy()
    white = np.random.default_rng(SEED).standard_normal((2, FRAME, FRAME))
    coloured = np.fft.ifft2(np.fft.fft2(white) * np.sqrt(spectrum / spectrum.mean())).real
    real, imaginary = torch.from_numpy(coloured.astype(np.float32))
    return real, imaginary
