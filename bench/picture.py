"""One picture that shows what Stillscan does: a generated slice before, after, and as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bench.phantom.series import WINDOW_CENTER, WINDOW_WIDTH
from bench.quality import Slice

SCALE = 2
CROP = (slice(2, 250), slice(28, 228))  # the head in the generated field of view
LABEL_HEIGHT = 34


def save_comparison(path: Path, columns: list[tuple[str, Slice]]) -> None:
    """Write slices side by side, each under its label, in the window of the generated series."""
    panels = [_panel(label, pixels[CROP]) for label, pixels in columns]
    width = sum(panel.width for panel in panels) + 6 * (len(panels) - 1)
    picture = Image.new("L", (width, panels[0].height), 255)
    left = 0
    for panel in panels:
        picture.paste(panel, (left, 0))
        left += panel.width + 6
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)


def _panel(label: str, pixels: Slice) -> Image.Image:
    low = WINDOW_CENTER - WINDOW_WIDTH / 2
    grey = np.clip((pixels - low) / WINDOW_WIDTH * 255, 0, 255).astype(np.uint8)
    image = Image.fromarray(grey)
    image = image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.BICUBIC)
    panel = Image.new("L", (image.width, image.height + LABEL_HEIGHT), 0)
    panel.paste(image, (0, LABEL_HEIGHT))
    font = ImageFont.load_default(size=18)
    ImageDraw.Draw(panel).text((10, 6), label, fill=230, font=font)
    return panel
