"""Pictures of slices side by side, each with its label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from bench.phantom.series import WINDOW_CENTER, WINDOW_WIDTH
from bench.quality import Slice

SCALE = 2
CROP = (slice(2, 250), slice(28, 228))  # the head in the generated field of view
LABEL_HEIGHT = 34

Grey = UInt8[np.ndarray, "row column"]


def save_comparison(path: Path, columns: Sequence[tuple[str, Slice]]) -> None:
    """Write slices side by side in the window of the generated series."""
    window = WINDOW_CENTER - WINDOW_WIDTH / 2, WINDOW_CENTER + WINDOW_WIDTH / 2
    save_panels(path, [(label, grey(pixels[CROP], *window)) for label, pixels in columns], SCALE)


def grey(pixels: Slice, low: float, high: float) -> Grey:
    """Convert to grey: black at `low` and below, white at `high` and above."""
    return np.clip((pixels - low) / (high - low) * 255, 0, 255).astype(np.uint8)


def save_panels(
    path: Path, panels: Sequence[tuple[str, Grey]], scale: int, shades: int = 256
) -> None:
    """Write pictures of one size side by side, each with its label.

    Args:
        path: of the PNG; its folder is made.
        panels: label and picture.
        scale: how many pixels of the file one pixel becomes, along both directions.
        shades: of grey that are kept; noise hardly compresses, and fewer make a smaller file.
    """
    drawn = [_panel(label, picture, scale) for label, picture in panels]
    width = sum(panel.width for panel in drawn) + 6 * (len(drawn) - 1)
    image = Image.new("L", (width, drawn[0].height), 255)
    left = 0
    for panel in drawn:
        image.paste(panel, (left, 0))
        left += panel.width + 6
    if shades < 256:
        image = image.quantize(shades, dither=Image.Dither.NONE)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)


def _panel(label: str, picture: Grey, scale: int) -> Image.Image:
    image = Image.fromarray(picture)
    size = (image.width * scale, image.height * scale)
    image = image.resize(size, Image.Resampling.BICUBIC)
    panel = Image.new("L", (image.width, image.height + LABEL_HEIGHT), 0)
    panel.paste(image, (0, LABEL_HEIGHT))
    font = ImageFont.load_default(size=18)
    ImageDraw.Draw(panel).text((10, 6), label, fill=230, font=font)
    return panel
