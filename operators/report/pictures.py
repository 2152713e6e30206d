"""Before, after and residual of one slice as 8-bit pictures."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset

from stillscan.operators.dicom.attributes import number_of, text_of
from stillscan.operators.volume import SliceHeader

if TYPE_CHECKING:
    from stillscan.operators.denoising.denoise_series import DenoisedBlock

MOST_ASPECT = 8.0
LARGEST_WINDOW = 1e30
RESIDUAL_SIGMAS = 3.0  # black and white of the residual picture are -3 and +3 sigma of the noise
PANEL_SIZE = 512  # a smaller matrix is enlarged to about this
CAPTION_HEIGHT = 28
GAP = 8
INK = 228
GROUND = 14
PNG_COMPRESSION = 3  # noise hardly compresses: a higher level costs time only

Grey = UInt8[np.ndarray, "row column"]


@dataclass(frozen=True)
class Comparison:
    """One slice of a series before and after, with the data for its display.

    Attributes:
        slice_number: counted from 1 in the order of the volume.
        before, after: pixels in modality units.
        padding: True where no image was acquired.
        window: lowest and highest value shown, modality units.
        inverted: whether low values are bright (MONOCHROME1).
        pixel_aspect: height of a pixel over its width.
        noise_before: sigma of the slice's block, modality units; None where it was not measured.
        unit: unit of the pixels.
    """

    slice_number: int
    before: Float32[np.ndarray, "row column"]
    after: Float32[np.ndarray, "row column"]
    padding: Bool[np.ndarray, "row column"]
    window: tuple[float, float]
    inverted: bool
    pixel_aspect: float
    noise_before: float | None
    unit: str


def compare_slice(denoised: DenoisedBlock, index: int) -> Comparison:
    """Take slice `index` of the volume from the denoised block that contains it."""
    block = denoised.block
    at = index - block.start
    header, before, padding = block.headers[at], block.pixels[at], block.padding[at]
    return Comparison(
        slice_number=index + 1,
        before=before,
        after=denoised.pixels[at],
        padding=padding,
        window=display_window(header, before[~padding]),
        inverted=text_of(header, "PhotometricInterpretation") == "MONOCHROME1",
        pixel_aspect=pixel_aspect(block.volume.slices[index]),
        noise_before=denoised.noise_before,
        unit=block.volume.unit,
    )


def display_window(header: Dataset, values: Float32[np.ndarray, " pixel"]) -> tuple[float, float]:
    """Return the header's window if it shows these values, else their percentiles 0.5 to 99.5."""
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(each) for each in np.percentile(values, (0.5, 99.5)))
    centre, width = number_of(header, "WindowCenter"), number_of(header, "WindowWidth")
    if centre is not None and width is not None and 1 < width < LARGEST_WINDOW > abs(centre):
        # PS3.3 C.11.2.1.2.1, linear
        bottom, top = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
        # the window may belong to another series: it must show most of these values
        if np.mean((values > bottom) & (values < top)) > 0.25:
            return bottom, top
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def pixel_aspect(slice_: SliceHeader) -> float:
    """Height of a pixel over its width, as far as a picture can show it; 1 where it is unknown."""
    down, across = slice_.plane.spacing_mm
    return min(max(down / across, 1 / MOST_ASPECT), MOST_ASPECT)


def grey_before(comparison: Comparison) -> Grey:
    """Return the original slice, in its window."""
    return _windowed(comparison, comparison.before)


def grey_after(comparison: Comparison) -> Grey:
    """Return the denoised slice, in the same window."""
    return _windowed(comparison, comparison.after)


def grey_residual(comparison: Comparison) -> Grey:
    """Return the removed part: mid grey is nothing, black and white are 3 sigma of the noise."""
    reach = RESIDUAL_SIGMAS * (comparison.noise_before or 0.0) or 1.0
    taken = (comparison.before - comparison.after) / reach
    return np.asarray(np.rint(np.clip(taken, -1, 1) * 127 + 128), dtype=np.uint8)


def png(grey: Grey) -> bytes:
    """Encode a grey picture as PNG."""
    buffer = BytesIO()
    Image.fromarray(grey).save(buffer, "PNG", compress_level=PNG_COMPRESSION)
    return buffer.getvalue()


def panel_png(comparison: Comparison, noise_after: float | None) -> bytes:
    """Draw before, after and residual side by side with captions, as one PNG."""
    unit = "" if comparison.unit == "1" else f" {comparison.unit}"
    known = comparison.noise_before is not None
    captions = (
        f"before   noise {comparison.noise_before:.3g}{unit}" if known else "before",
        "after" if noise_after is None else f"after   noise {noise_after:.3g}{unit}",
        f"removed   \N{PLUS-MINUS SIGN}{RESIDUAL_SIGMAS:.0f} x noise",
    )
    pictures = [
        _at_display_size(grey, comparison.pixel_aspect)
        for grey in (grey_before(comparison), grey_after(comparison), grey_residual(comparison))
    ]
    width, height = pictures[0].size
    panel = Image.new("L", (3 * width + 4 * GAP, height + CAPTION_HEIGHT + GAP), GROUND)
    draw = ImageDraw.Draw(panel)
    font = ImageFont.load_default(size=14)
    for position, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = GAP + position * (width + GAP)
        panel.paste(picture, (left, CAPTION_HEIGHT))
        draw.text((left, 6), caption, fill=INK, font=font)
    buffer = BytesIO()
    panel.save(buffer, "PNG", compress_level=PNG_COMPRESSION)
    return buffer.getvalue()


def _windowed(comparison: Comparison, pixels: Float32[np.ndarray, "row column"]) -> Grey:
    low, high = comparison.window
    width = high - low or 1.0  # of a constant image, whose values are too large for 0.5 to count
    share = np.clip((pixels - low) / width, 0, 1)
    if comparison.inverted:
        share = 1 - share
    share[comparison.padding] = 0
    return np.asarray(np.rint(share * 255), dtype=np.uint8)


def _at_display_size(grey: Grey, aspect: float) -> Image.Image:
    """Square pixels, and a small matrix enlarged by a whole factor so that it can be seen."""
    picture = Image.fromarray(grey)
    factor = max(1, round(PANEL_SIZE / max(picture.size)))
    width, height = picture.width * factor, round(picture.height * factor * aspect)
    return picture.resize((width, max(height, 1)), Image.Resampling.BICUBIC)
