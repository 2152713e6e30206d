"""How the images of a series are shown: window, proportions, thumbnail."""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float32
from PIL import Image
from pydicom import Dataset

from stillscan.operators.dicom.attributes import number_of, text_of
from stillscan.operators.reading.records import SeriesName
from stillscan.operators.volume import SliceHeader

if TYPE_CHECKING:
    from stillscan.operators.denoising.denoise_series import DenoisedBlock

MOST_ASPECT = 8.0
LARGEST_WINDOW = 1e30
THUMBNAIL = 128  # pixels of its longer side
CT_WINDOWS = {  # centre and width in HU
    "soft tissue": (40, 400),
    "lung": (-600, 1500),
    "bone": (500, 2000),
    "brain": (40, 80),
    "liver": (90, 150),
}

Plane = Float32[np.ndarray, "row column"]


@dataclass(frozen=True)
class Display:
    """How the images of a series are shown.

    Attributes:
        window: lowest and highest value shown, modality units.
        inverted: whether low values are bright (MONOCHROME1).
        aspect: height of a pixel over its width.
        presets: further windows by name.
    """

    window: tuple[float, float]
    inverted: bool
    aspect: float
    presets: dict[str, tuple[float, float]]


def display_of(denoised: DenoisedBlock, at: int) -> Display:
    """Choose the display of a series by the slice `at` of one of its blocks."""
    block = denoised.block
    header, real = block.headers[at], block.pixels[at][~block.padding[at]]
    presets = {"all values": range_of(real)}
    if block.volume.unit == "HU":
        presets |= {name: (c - w / 2, c + w / 2) for name, (c, w) in CT_WINDOWS.items()}
    return Display(
        window=display_window(header, real),
        inverted=text_of(header, "PhotometricInterpretation") == "MONOCHROME1",
        aspect=pixel_aspect(block.volume.slices[block.start + at]),
        presets=presets,
    )


def completed_name(name: SeriesName, header: Dataset) -> SeriesName:
    """Add body part and date from a header; a date that is none is left out."""
    date = text_of(header, "SeriesDate") or text_of(header, "StudyDate")
    is_date = len(date) == 8 and date.isdecimal()
    return replace(
        name,
        body_part=text_of(header, "BodyPartExamined"),
        date=f"{date[:4]}-{date[4:6]}-{date[6:]}" if is_date else "",
    )


def range_of(values: Float32[np.ndarray, " pixel"]) -> tuple[float, float]:
    """Return the percentiles 0.5 to 99.5; never an empty range."""
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(each) for each in np.percentile(values, (0.5, 99.5)))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def display_window(header: Dataset, values: Float32[np.ndarray, " pixel"]) -> tuple[float, float]:
    """Return the header's window if it shows these values, else their percentiles 0.5 to 99.5."""
    centre, width = number_of(header, "WindowCenter"), number_of(header, "WindowWidth")
    if centre is not None and width is not None and 1 < width < LARGEST_WINDOW > abs(centre):
        # PS3.3 C.11.2.1.2.1, linear
        bottom, top = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
        # the window may belong to another series: it must show most of these values
        if values.size and np.mean((values > bottom) & (values < top)) > 0.25:
            return bottom, top
    return range_of(values)


def pixel_aspect(slice_: SliceHeader) -> float:
    """Height of a pixel over its width, as far as a picture can show it; 1 where it is unknown."""
    down, across = slice_.plane.spacing_mm
    return min(max(down / across, 1 / MOST_ASPECT), MOST_ASPECT)


def thumbnail(display: Display, pixels: Plane, padding: Bool[np.ndarray, "row column"]) -> bytes:
    """Return a small PNG of a slice in the window of the series."""
    low, high = display.window
    width = high - low or 1.0  # of a constant image, whose values are too large for 0.5 to count
    share = np.clip((pixels - low) / width, 0, 1)
    if display.inverted:
        share = 1 - share
    share[padding] = 0
    picture = Image.fromarray(np.asarray(np.rint(share * 255), dtype=np.uint8))
    height = picture.height * display.aspect
    scale = THUMBNAIL / max(picture.width, height)
    size = max(1, round(picture.width * scale)), max(1, round(height * scale))
    return png(picture.resize(size, Image.Resampling.BOX))


def png(picture: Image.Image) -> bytes:
    """Encode a picture as PNG."""
    buffer = BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
