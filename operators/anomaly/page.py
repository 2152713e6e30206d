"""The HTML page of an anomaly map: the slices with the highest scores, and the regions."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from stillscan.operators.anomaly.assessing import CANDIDATE, Assessment, Region
from stillscan.operators.report.rendering import Number, Section, render
from stillscan.operators.volume import VolumeBlock

SHOWN = 8  # slices on a page
COLOURS = {  # score: red, green, blue, opacity
    2.0: (255, 224, 102, 90),
    3.0: (255, 140, 40, 170),
    4.0: (255, 50, 50, 220),
}
TEMPLATE = Path(__file__).with_name("templates") / "anomaly.html.j2"


class Pictures:
    """Keeps the slices with the highest scores of a series as pictures."""

    def __init__(self) -> None:
        """Begin without any."""
        self._kept: list[tuple[float, int, str, str, str]] = []

    def add(self, block: VolumeBlock, scores: np.ndarray, healthy: np.ndarray) -> None:
        """Look at the slices of one block."""
        for index, (image, score, invented) in enumerate(
            zip(block.pixels, scores, healthy, strict=True)
        ):
            height = float(np.sort(score, axis=None)[-max(1, score.size // 1000) :].mean())
            if len(self._kept) == SHOWN and height <= self._kept[-1][0]:
                continue
            low, high = np.percentile(image, (0.5, 99.5))
            greys = [
                np.clip((each - low) / (float(high - low) or 1.0) * 255, 0, 255).astype(np.uint8)
                for each in (image, invented)
            ]
            number = block.start + index + 1
            self._kept.append(
                (height, number, _uri(greys[0]), _uri(_overlay(score)), _uri(greys[1]))
            )
            self._kept = sorted(self._kept, key=lambda kept: -kept[0])[:SHOWN]

    @property
    def shown(self) -> list[dict[str, object]]:
        """Return the pictures in the order of the slices."""
        names = ("number", "image", "overlay", "healthy")
        return [
            dict(zip(names, kept[1:], strict=True))
            for kept in sorted(self._kept, key=lambda kept: kept[1])
        ]


def anomaly_page(
    found: Assessment, regions: Sequence[Region], pictures: Pictures, bundle: str
) -> str:
    """Return the page of one series."""
    spacing = found.volume.slices[0].plane.spacing_mm
    rows = [
        (
            f"Region {each.number}",
            f"{each.volume_mm3:.0f} mm\N{SUPERSCRIPT THREE}, 1 in {10**each.largest:,.0f} healthy "
            f"pixels at its highest, slices {each.slices[0] + 1} to {each.slices[-1] + 1}",
        )
        for each in regions
    ]
    section = Section("Candidate regions", ["none: this says nothing about the patient"])
    return render(
        TEMPLATE,
        title=f"{found.volume.modality} series, {len(found.likeness)} slices",
        bundle=bundle,
        aspect=f"{found.volume.columns * spacing[1]:g} / {found.volume.rows * spacing[0]:g}",
        figures=[
            Number("Above healthy slices", f"{found.unlikeness:+.1f}", " deviations"),
            Number("Candidate regions", str(len(regions))),
        ],
        slices=pictures.shown,
        legend=[
            (f"rgb{rgba[:3]}", f"1 in {10**score:,.0f} healthy pixels")
            for score, rgba in COLOURS.items()
        ],
        candidate=f"1 in {10**CANDIDATE:,.0f}",
        sections=[Section("Candidate regions", rows=rows) if rows else section],
    )


def _overlay(score: np.ndarray) -> np.ndarray:
    picture = np.zeros((*score.shape, 4), np.uint8)
    for level, colour in COLOURS.items():
        picture[score >= min(level, 3.99)] = colour
    return picture


def _uri(picture: np.ndarray) -> str:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return "data:image/png;base64," + b64encode(buffer.getvalue()).decode("ascii")
