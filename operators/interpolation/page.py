"""The HTML page that plays a cine beside its interpolated series; made frames are marked."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from stillscan.operators.interpolation.write import Film
from stillscan.operators.report.display import png
from stillscan.operators.report.rendering import Section, render

PAGE = Path(__file__).with_name("templates") / "cine.html.j2"


def cine_page(film: Film, rows: Sequence[tuple[str, str]]) -> str:
    """Return the page of one place; `rows` are names and values for the table below it."""
    height, width = film.pictures[0].shape
    return render(
        PAGE,
        title="Cine with made phases",
        aspect=f"{width} / {height * film.pixel_aspect:g}",
        made=[_data_uri(film, each) for each in film.pictures],
        source=[_data_uri(film, each) for each in film.acquired],
        is_made=[int(each) for each in film.made],
        beat_ms=film.beat_ms or 1000,
        sections=[Section("Series", rows=rows)],
    )


def _data_uri(film: Film, pixels: np.ndarray) -> str:
    low, high = film.window
    grey = np.rint(255 * np.clip((pixels - low) / max(high - low, 1e-9), 0, 1)).astype(np.uint8)
    return "data:image/png;base64," + b64encode(png(Image.fromarray(grey))).decode("ascii")
