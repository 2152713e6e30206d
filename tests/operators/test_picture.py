from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset

from stillscan.operators.geometry import Plane
from stillscan.operators.report.pictures import (
    MOST_ASPECT,
    Comparison,
    display_window,
    grey_after,
    grey_before,
    grey_residual,
    panel_png,
    pixel_aspect,
)
from stillscan.operators.volume import SliceHeader


def comparison(**changes: object) -> Comparison:
    before = np.linspace(0, 100, 64, dtype=np.float32).reshape(8, 8)
    plain = Comparison(
        slice_number=1,
        before=before,
        after=before.copy(),
        padding=np.zeros((8, 8), bool),
        window=(0.0, 100.0),
        inverted=False,
        pixel_aspect=1.0,
        noise_before=5.0,
        unit="HU",
    )
    return replace(plain, **changes)


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


def test_constant_image_has_a_window() -> None:
    assert display_window(header(), np.full(9, 7, np.float32)) == (6.5, 7.5)


def test_image_of_padding_alone_has_a_window() -> None:
    assert display_window(header(), np.empty(0, np.float32)) == (0.0, 1.0)


def test_window_spans_the_greys() -> None:
    grey = grey_before(comparison())
    assert (grey.min(), grey.max()) == (0, 255)


def test_monochrome1_shows_low_values_bright() -> None:
    upright = grey_before(comparison())
    np.testing.assert_array_equal(grey_before(comparison(inverted=True)), 255 - upright)


def test_before_and_after_share_their_window() -> None:
    brighter = comparison(after=comparison().before + np.float32(50))
    np.testing.assert_array_equal(grey_before(brighter), grey_before(comparison()))
    assert grey_after(brighter).min() == 128


def test_padding_is_black() -> None:
    padding = np.eye(8, dtype=bool)
    assert set(grey_before(comparison(padding=padding, inverted=True))[padding]) == {0}


def test_residual_of_nothing_is_mid_grey() -> None:
    assert set(grey_residual(comparison()).flat) == {128}


def test_residual_is_bright_where_something_was_taken_away() -> None:
    taken = comparison(after=comparison().before - np.float32(15))
    assert set(grey_residual(taken).flat) == {255}


def test_residual_of_a_series_without_noise_is_finite() -> None:
    assert set(grey_residual(comparison(noise_before=0.0)).flat) == {128}


def slice_of(*spacing_mm: float) -> SliceHeader:
    plane = Plane(spacing_mm=spacing_mm) if spacing_mm else Plane()
    return SliceHeader(Path("one.dcm"), 0, "1.2", 1, None, 1.0, 0.0, plane=plane)


def test_pixels_that_are_not_square_are_shown_in_proportion() -> None:
    assert pixel_aspect(slice_of(2.0, 0.5)) == 4.0
    assert pixel_aspect(slice_of(0.2, 0.2)) == 1.0
    assert pixel_aspect(slice_of()) == 1.0
    square = Image.open(BytesIO(panel_png(comparison(), 1.0)))
    tall = Image.open(BytesIO(panel_png(comparison(pixel_aspect=2.0), 1.0)))
    assert square.width == tall.width
    assert tall.height > 1.8 * square.height


def test_a_picture_does_not_grow_with_the_aspect_of_its_pixels() -> None:
    assert pixel_aspect(slice_of(100.0, 0.001)) == MOST_ASPECT
    assert pixel_aspect(slice_of(0.001, 100.0)) == 1 / MOST_ASPECT


def test_a_constant_image_of_huge_values_can_be_drawn() -> None:
    huge = comparison(before=np.full((8, 8), 1e34, np.float32), window=(1e34, 1e34))
    assert panel_png(huge, None).startswith(b"\x89PNG")


def test_panel_can_be_drawn_without_a_measurement_afterwards() -> None:
    assert panel_png(comparison(unit="1"), None).startswith(b"\x89PNG")
