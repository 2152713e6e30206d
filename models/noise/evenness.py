"""What a series shows at first sight: slices of different noise, or noise alone.

Slices differ in noise by thickness, tube current, coil and averages.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from stillscan.models.noise.blocks import excess_kurtosis
from stillscan.models.noise.levels import DARK
from stillscan.models.noise.profile import NoiseProfile

Image = Float[np.ndarray, "row column"]

UNEVEN = 2.0  # ratio of the levels of two slices; anatomy alone changes them by up to 1.9
FLATTEST = 0.2  # quantile of the blocks that is compared: most of it noise
SIDE = 16  # pixels of the blocks whose means tell signal from noise
SIGNAL = 2.0  # times what noise lets the means of blocks vary: more is signal
FAR_FROM_ZERO = 5.0  # times the noise
SCRAMBLED = 0.7  # excess kurtosis; values that are all equally likely have -1.2
CELL = 4  # differences of 2 x 2 pixels along a side of a block


def is_uneven(images: Sequence[Image]) -> bool:
    """Whether the finest detail of the flattest blocks differs strongly between slices."""
    found = [level for image in images if (level := _quick_level(image)) > 0]
    return len(found) > 1 and max(found) > UNEVEN * min(found)


def _quick_level(image: Image) -> float:
    """Root mean square of the diagonal detail in the flattest blocks with signal; 0 without any."""
    rows, columns = (side // (2 * CELL) * 2 * CELL for side in image.shape)
    if rows == 0 or columns == 0:
        return 0.0
    whole = image[:rows, :columns]
    detail = (whole[::2, ::2] - whole[1::2, ::2] - whole[::2, 1::2] + whole[1::2, 1::2]) / 2
    blocks = (rows // (2 * CELL), CELL, columns // (2 * CELL), CELL)
    power = (detail**2).reshape(blocks).mean((1, 3))
    means = whole.reshape(blocks[0], 2 * CELL, blocks[2], 2 * CELL).mean((1, 3))
    bright = power[(means > DARK * np.quantile(means, 0.98)) & (power > 0)]
    return float(np.sqrt(np.quantile(bright, FLATTEST))) if bright.size else 0.0


def is_noise_alone(images: Sequence[Image], noise: NoiseProfile) -> bool:
    """Whether no image shows an object: nothing but noise around zero, or values in random order.

    Values in random order (pixels that were scrambled) are not normal. An even object that fills
    the image, such as a flood phantom, is a signal: its noise is normal and far from zero.
    """
    of_mean = noise.sigma * float(np.sqrt(max(noise.acf.sum(), 0.1))) / SIDE
    return all(
        _varies(image) < SIGNAL * of_mean
        and (
            image.mean() < FAR_FROM_ZERO * noise.sigma
            or abs(excess_kurtosis(image - image.mean())) > SCRAMBLED
        )
        for image in images
    )


def _varies(image: Image) -> float:
    """Standard deviation of the means of blocks; infinite where the image has few blocks."""
    rows, columns = (side // SIDE for side in image.shape)
    if rows * columns < 9:
        return float("inf")
    whole = image[: rows * SIDE, : columns * SIDE].astype(np.float64)
    return float(whole.reshape(rows, SIDE, columns, SIDE).mean((1, 3)).std())
