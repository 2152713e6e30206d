"""Denoised pixels become stored values: exact where nothing changed, rounded and clipped once."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom import Dataset

from stillscan.operators.errors import NotFinitePixelsError
from stillscan.operators.writing.stored_values import Change, PixelFormat, pixel_format, store_slice

CT = PixelFormat(allocated=16, stored=12, signed=True)


def store(
    source: np.ndarray,
    after: np.ndarray,
    layout: PixelFormat = CT,
    slope: float = 1.0,
    intercept: float = 0.0,
    padding: np.ndarray | None = None,
) -> tuple[np.ndarray, Change]:
    before = (source * slope + intercept).astype(np.float32)
    if padding is None:
        padding = np.zeros(source.shape, bool)
    return store_slice(source, before, after.astype(np.float32), padding, slope, intercept, layout)


def row(*values: float) -> np.ndarray:
    return np.array([values])


@given(
    bits=st.sampled_from([8, 10, 12, 14, 16]),
    signed=st.booleans(),
    slope=st.floats(1e-6, 1e6, allow_subnormal=False) | st.floats(-1e6, -1e-6),
    intercept=st.floats(-1e6, 1e6),
    data=st.data(),
)
def test_pixels_that_are_not_changed_keep_their_stored_value_whatever_the_slope(
    bits: int, signed: bool, slope: float, intercept: float, data: st.DataObject
) -> None:
    layout = PixelFormat(8 if bits == 8 else 16, bits, signed)
    values = st.integers(layout.lowest, layout.highest)
    source = data.draw(arrays(layout.dtype, (4, 4), elements=values))
    pixels = (source * slope + intercept).astype(np.float32)
    stored, change = store(source, pixels, layout, slope, intercept)
    assert np.array_equal(stored, source)
    assert (change.changed, change.clipped, change.mean_shift) == (0, 0, 0.0)


def test_rounding_is_half_to_even() -> None:
    stored, _ = store(row(0, 0, 0, 0), row(0.5, 1.5, 2.5, -0.5))
    assert stored.tolist() == [[0, 2, 2, 0]]


def test_the_slope_of_the_slice_divides_the_change() -> None:
    stored, _ = store(row(100), row(100 * 0.25 - 3 + 1), slope=0.25, intercept=-3)
    assert stored.tolist() == [[104]]


def test_values_beyond_the_stored_bits_are_clipped_and_counted() -> None:
    stored, change = store(row(2000, -2000, 0), row(3000, -3000, 10))
    assert stored.tolist() == [[2047, -2048, 10]]
    assert change.clipped == 2


def test_what_the_scanner_had_clipped_stays_clipped_and_is_not_counted() -> None:
    unsigned = replace(CT, signed=False)
    source, after = row(0, 0, 3, 4095, 4090), row(40, -9, -2, 3000, 4100)
    stored, change = store(source, after, unsigned)
    assert stored.tolist() == [[0, 0, 0, 4095, 4095]]
    assert change.clipped == 0  # at either end no more than before
    stored, change = store(row(0, 3, 5, 7, 4000), row(0, -2, -2, -2, 4000), unsigned)
    assert stored.tolist() == [[0, 0, 0, 0, 4000]]
    assert change.clipped == 2
    padding = row(1, 1, 0, 0, 0).astype(bool)
    _, change = store(row(0, 0, 5, 7, 9), row(0, 0, -2, -2, 9), unsigned, padding=padding)
    assert change.clipped == 2  # padding is nothing that the scanner had clipped


def test_padding_outside_the_stored_bits_stays_and_is_not_clipped() -> None:
    source = row(-3000, 5, 6)
    stored, change = store(source, row(-3000, 7, 6), padding=source == -3000)
    assert stored.tolist() == [[-3000, 7, 6]]
    assert (change.clipped, change.changed) == (0, 1)


@pytest.mark.parametrize(
    ("bits", "signed", "lowest", "highest"),
    [(12, False, 0, 4095), (12, True, -2048, 2047), (16, False, 0, 65535), (8, False, 0, 255)],
)
def test_stored_bits_and_sign_set_the_range(
    bits: int, signed: bool, lowest: int, highest: int
) -> None:
    layout = PixelFormat(16, bits, signed)
    assert (layout.lowest, layout.highest) == (lowest, highest)


def test_padding_keeps_its_stored_values() -> None:
    layout = replace(CT, padding=(-2000, -1990))
    padding = np.array([[True, True, False]])
    stored, change = store(row(-2000, -1990, 5), row(50, 60, 7), layout, padding=padding)
    assert stored.tolist() == [[-2000, -1990, 7]]
    assert change.real == 1


def test_no_real_pixel_lands_in_the_padding_range() -> None:
    layout = replace(CT, padding=(-20, -10))
    stored, _ = store(row(-9, -21, 30), row(-15, -15, -10), layout)
    assert stored.tolist() == [[-9, -21, -9]]


def test_padding_at_the_end_of_the_range_is_left_towards_the_inside() -> None:
    layout = PixelFormat(16, 12, signed=False, padding=(0, 0))
    stored, _ = store(row(5, 1), row(-3, 0), layout)
    assert stored.tolist() == [[1, 1]]


def test_mean_shift_is_that_of_the_real_pixels_in_modality_units() -> None:
    padding = np.array([[True, False, False]])
    _, change = store(row(0, 10, 20), row(0, 6, 12), slope=0.5, padding=padding)
    assert change.mean_shift == pytest.approx(0.5 * ((12 - 10) + (24 - 20)) / 2)


def test_the_range_of_values_leaves_out_padding() -> None:
    source = np.tile(np.arange(100), (100, 1))
    padding = source < 50
    _, change = store(source, source, padding=padding)
    assert (change.low, change.high) == (50, 99)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_pixel_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(NotFinitePixelsError):
        store(row(1, 2), row(1, value))


def test_the_header_says_how_pixels_are_stored() -> None:
    dataset = Dataset()
    dataset.BitsAllocated, dataset.BitsStored, dataset.PixelRepresentation = 16, 12, 1
    assert pixel_format(dataset) == CT
