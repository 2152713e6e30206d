"""The observer reads what theory says it must."""

import math

import pytest
import torch

from stillscan.models.metrics.detectability import (
    hotelling_detectability,
    laguerre_gauss,
    paired_detectability,
    readings,
)

SIZE = 25


@pytest.fixture
def disc():
    axis = torch.arange(SIZE) - SIZE // 2
    return (axis[:, None] ** 2 + axis[None, :] ** 2 <= 16).double()


def images(count, generator):
    return torch.randn(count, SIZE, SIZE, generator=generator).double()


def test_channels_are_orthonormal_where_the_region_holds_them():
    channels = laguerre_gauss(41, 10.0)
    products = torch.einsum("ahw,bhw->ab", channels, channels)
    assert torch.allclose(products, torch.eye(5, dtype=torch.float64), atol=0.02)


def test_detectability_in_white_noise_is_the_channelled_energy_of_the_signal(disc):
    """d' = |U s| / sigma for orthonormal channels U."""
    generator = torch.Generator().manual_seed(0)
    channels, signal = laguerre_gauss(SIZE, 9.0), 0.4 * disc
    n = 4000
    found = hotelling_detectability(
        readings(images(n, generator) + signal, channels),
        readings(images(n, generator), channels),
        readings(images(n, generator), channels),
    )
    expected = float(readings(signal[None], channels).norm())
    assert found == pytest.approx(expected, rel=0.05)
    assert found <= 1.05 * float(signal.norm())  # of the ideal observer


def test_detectability_from_few_images_is_not_biased(disc):
    generator = torch.Generator().manual_seed(1)
    channels, signal = laguerre_gauss(SIZE, 9.0), 0.4 * disc
    squares = []
    for _ in range(300):
        present = readings(images(4, generator) + signal, channels)
        absent = readings(images(4, generator), channels)
        background = readings(images(30, generator), channels)
        squares.append(hotelling_detectability(present, absent, background) ** 2)
    expected = float(readings(signal[None], channels).norm())
    assert math.sqrt(sum(squares) / len(squares)) == pytest.approx(expected, rel=0.06)


def test_no_signal_is_mostly_read_as_none(disc):
    generator = torch.Generator().manual_seed(2)
    channels = laguerre_gauss(SIZE, 9.0)
    found = [
        hotelling_detectability(*(readings(images(n, generator), channels) for n in (4, 4, 30)))
        for _ in range(50)
    ]
    assert sum(value < 1.5 for value in found) > 40


def test_pairs_with_the_same_noise_are_not_biased_and_say_more(disc):
    generator = torch.Generator().manual_seed(3)
    channels, signal = laguerre_gauss(SIZE, 9.0), 0.4 * disc
    squares = []
    for _ in range(200):
        noise = images(32, generator)
        present, absent = (readings(part, channels) for part in (noise + signal, noise))
        squares.append(paired_detectability(present, absent) ** 2)
    expected = float(readings(signal[None], channels).norm())
    assert math.sqrt(sum(squares) / len(squares)) == pytest.approx(expected, rel=0.03)


def test_a_linear_filter_that_can_be_undone_changes_no_detectability(disc):
    """What an observer with these channels reads depends on them, not on their scale."""
    generator = torch.Generator().manual_seed(4)
    channels, noise = laguerre_gauss(SIZE, 9.0), images(32, generator)
    before = [readings(part, channels) for part in (noise + 0.4 * disc, noise)]
    after = [readings(0.1 * part, channels) for part in (noise + 0.4 * disc, noise)]
    assert paired_detectability(*after) == pytest.approx(paired_detectability(*before))
