"""How a slice is shown: window, proportions, thumbnail, and the lossless text of the page."""

import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset

from stillscan.operators.geometry import Plane
from stillscan.operators.reading.records import SeriesName
from stillscan.operators.report.display import (
    MOST_ASPECT,
    THUMBNAIL,
    Display,
    completed_name,
    display_window,
    pixel_aspect,
    range_of,
    thumbnail,
)
from stillscan.operators.report.slices import DIGITS, base85, encoded, reduced, volumes_of
from stillscan.operators.volume import SliceHeader


def header(**attributes: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


VALUES = np.linspace(0, 1000, 1001, dtype=np.float32)


def test_window_of_the_header_is_used() -> None:
    assert display_window(header(WindowCenter=500, WindowWidth=801), VALUES) == (99.5, 899.5)


def test_first_of_several_windows_is_used() -> None:
    windows = header(WindowCenter=[500, 40], WindowWidth=[801, 80])
    assert display_window(windows, VALUES) == (99.5, 899.5)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"WindowCenter": None, "WindowWidth": None},
        {"WindowCenter": 500, "WindowWidth": 1},
        {"WindowCenter": 90000, "WindowWidth": 100},  # left behind by another series
    ],
)
def test_window_that_shows_nothing_gives_way_to_percentiles(attributes: dict) -> None:
    assert display_window(header(**attributes), VALUES) == (5.0, 995.0)


def test_a_range_is_never_empty() -> None:
    assert range_of(np.full(9, 7, np.float32)) == (6.5, 7.5)
    assert range_of(np.empty(0, np.float32)) == (0.0, 1.0)


def small(pixels: np.ndarray, **display: object) -> np.ndarray:
    chosen = {"window": (0.0, 100.0), "inverted": False, "aspect": 1.0, "presets": {}} | display
    padding = np.zeros(pixels.shape, bool)
    padding[0, 0] = True
    png = thumbnail(Display(**chosen), pixels.astype(np.float32), padding)
    return np.asarray(Image.open(BytesIO(png)))


RAMP = np.tile(np.linspace(0, 100, THUMBNAIL, dtype=np.float32), (THUMBNAIL, 1))


def test_a_thumbnail_spans_the_greys_of_its_window() -> None:
    assert (small(RAMP).min(), small(RAMP).max()) == (0, 255)
    turned = small(RAMP, inverted=True)
    np.testing.assert_array_equal(turned[1:, 1:], 255 - small(RAMP)[1:, 1:])
    assert turned[0, 0] == 0, "padding is black"


def test_a_thumbnail_has_the_proportions_of_the_patient() -> None:
    assert small(RAMP, aspect=2.0).shape == (THUMBNAIL, THUMBNAIL // 2)
    assert small(np.full((8, 8), 1e34), window=(1e34, 1e34)).shape == (THUMBNAIL, THUMBNAIL)


def slice_of(*spacing_mm: float) -> SliceHeader:
    plane = Plane(spacing_mm=spacing_mm) if spacing_mm else Plane()
    return SliceHeader(Path("one.dcm"), 0, "1.2", 1, None, 1.0, 0.0, plane=plane)


def test_proportions_of_pixels_are_kept_as_far_as_they_can_be_shown() -> None:
    assert pixel_aspect(slice_of(2.0, 0.5)) == 4.0
    assert pixel_aspect(slice_of()) == 1.0
    assert pixel_aspect(slice_of(100.0, 0.001)) == MOST_ASPECT
    assert pixel_aspect(slice_of(0.001, 100.0)) == 1 / MOST_ASPECT


def test_a_date_that_is_none_is_not_shown() -> None:
    named = header(BodyPartExamined="HEAD", SeriesDate="20240131")
    assert completed_name(SeriesName(4, "t1"), named) == SeriesName(4, "t1", "HEAD", "2024-01-31")
    named["SeriesDate"].value = "January"
    assert completed_name(SeriesName(4, "t1"), named).date == ""


def decoded(text: bytes, shape: tuple[int, int], planes: int) -> np.ndarray:
    """What the page makes of a text, pixel by pixel, in Python's own whole numbers."""
    place = {digit: value for value, digit in enumerate(DIGITS.tobytes())}
    content = bytearray()
    for at in range(1, len(text), 5):
        number = 0
        for digit in text[at : at + 5]:
            number = number * 85 + place[digit]
        content += number.to_bytes(4, "big")
    raw = np.frombuffer(zlib.decompress(content[: len(content) - int(text[:1])]), np.uint8)
    codes = np.zeros(shape, np.int64)
    for plane in raw.reshape(planes, *shape):
        codes = codes << 8 | plane
    image = np.zeros((shape[0] + 1, shape[1] + 1), np.int64)
    for y in range(shape[0]):
        for x in range(shape[1]):
            a, b, c = int(image[y + 1, x]), int(image[y, x + 1]), int(image[y, x])
            a, b, c = (0 if x == 0 else a), (0 if y == 0 else b), (0 if x == 0 or y == 0 else c)
            code = int(codes[y, x])
            middle = (a + b - c + 2**31) % 2**32 - 2**31
            value = (code >> 1 ^ -(code & 1)) + min(max(middle, min(a, b)), max(a, b))
            image[y + 1, x + 1] = (value + 2**31) % 2**32 - 2**31
    return image[1:, 1:]


@pytest.mark.parametrize(
    ("low", "high", "planes"),
    [(0, 3, 1), (-50, 70, 1), (-1024, 3071, 2), (-(2**31), 2**31 - 1, 4), (0, 1, 3)],
)
def test_a_slice_comes_back_from_its_text_bit_by_bit(low: int, high: int, planes: int) -> None:
    image = np.random.default_rng(3).integers(low, high, (13, 7), endpoint=True)
    np.testing.assert_array_equal(decoded(encoded(image, planes), image.shape, planes), image)


def test_a_text_holds_nothing_that_is_markup() -> None:
    assert len(set(DIGITS.tolist())) == 85
    assert not set(base85(bytes(range(256)) * 4)) & set(b"<>&\"' \n\\")


def test_reducing_takes_means_and_leaves_incomplete_squares_out() -> None:
    image = np.arange(30.0).reshape(5, 6)
    np.testing.assert_array_equal(reduced(image, 2), [[3.5, 5.5, 7.5], [15.5, 17.5, 19.5]])


@pytest.mark.parametrize(
    ("places", "volumes"),
    [("abc", 1), ("abcabc", 2), ("aabbcc", 1), ("abcab", 1), (["a", None], 1)],
)
def test_volumes_are_the_same_positions_in_the_same_order(places, volumes: int) -> None:
    assert volumes_of(list(places)) == volumes
