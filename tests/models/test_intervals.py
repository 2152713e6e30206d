"""Intervals: their coverage is what they claim, and they are the same every time."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from stillscan.models.metrics.confidence_intervals import (
    bootstrap_mean,
    difference_of_shares,
    wilson,
)


@pytest.mark.parametrize(("found", "tried"), [(0, 20), (3, 20), (20, 20), (51, 100)])
def test_wilson_agrees_with_scipy(found, tried):
    expected = binomtest(found, tried).proportion_ci(method="wilson")
    interval = wilson(found, tried)
    assert interval.low == pytest.approx(expected.low, abs=1e-6)
    assert interval.high == pytest.approx(expected.high, abs=1e-6)


def test_nothing_tried_says_nothing():
    interval = wilson(0, 0)
    assert math.isnan(interval.value)
    assert (interval.low, interval.high) == (0, 1)


def test_bootstrap_of_independent_values_has_the_width_of_the_standard_error():
    values = np.random.default_rng(1).normal(3, 2, 200)
    interval = bootstrap_mean([[float(value)] for value in values])
    assert interval.value == pytest.approx(values.mean())
    standard_error = values.std() / math.sqrt(200)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * standard_error, rel=0.1)


def test_bootstrap_of_equal_slices_is_as_wide_as_that_of_their_subjects():
    subjects = [1.0, 2.0, 4.0, 8.0]
    one, many = (bootstrap_mean([[v] * n for v in subjects]) for n in (1, 50))
    assert (many.low, many.high) == pytest.approx((one.low, one.high), abs=0.3)


def test_bootstrap_gives_the_same_numbers_every_time():
    groups = [[1.0, 2.0], [3.0]]
    assert bootstrap_mean(groups) == bootstrap_mean(groups)


def test_difference_of_equal_shares_holds_zero_and_of_far_ones_does_not():
    same = difference_of_shares((10, 100), (11, 100))
    far = difference_of_shares((90, 100), (10, 100))
    assert same.low < 0 < same.high
    assert far.value == pytest.approx(0.8)
    assert 0.6 < far.low < 0.8 < far.high
