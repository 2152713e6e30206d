"""CT noise that is made in projections has the spectrum and the place that scanners' has."""

import pytest
import torch

from stillscan.models.training.projection_noise import (
    WINDOW,
    Kernel,
    noise_fields,
    spectrum_of_field,
)

SIDE = 160


def head() -> torch.Tensor:
    """A disc of water with a ring of bone, in air."""
    axis = torch.arange(SIDE) - (SIDE - 1) / 2
    radius = torch.hypot(axis[:, None], axis[None, :]) / SIDE
    return torch.where(radius < 0.38, 0.0, torch.where(radius < 0.42, 800.0, -1000.0))


def lag_1_and_frequency(fields: torch.Tensor) -> tuple[float, float]:
    middle = fields[:, 48:112, 48:112]
    power = middle.square().mean()
    down = (middle[:, 1:] * middle[:, :-1]).mean() / power
    right = (middle[:, :, 1:] * middle[:, :, :-1]).mean() / power
    spectrum = torch.fft.fft2(middle).abs().square().mean(0)
    f = torch.fft.fftfreq(64)
    frequency = (spectrum * torch.hypot(f[:, None], f[None, :])).sum() / spectrum.sum()
    return float((down + right) / 2), float(frequency)


@pytest.mark.parametrize(
    ("kernel", "pixel_mm", "lag_1", "frequency"),
    [  # measured on a Philips B (GE STD: 0.65, 0.187) and a Philips YA reconstruction
        (Kernel(0.36 * 0.516), 0.516, 0.63, 0.193),
        (Kernel(0.62 * 0.451, 2.0, 0.6), 0.451, 0.40, 0.266),
    ],
)
def test_kernels_give_the_spectra_of_scanners(kernel, pixel_mm, lag_1, frequency):
    fields = noise_fields(head(), pixel_mm, [kernel] * 4, torch.Generator().manual_seed(0))
    found = lag_1_and_frequency(fields)
    assert found == (pytest.approx(lag_1, abs=0.06), pytest.approx(frequency, abs=0.02))


def test_noise_is_of_unit_power_in_the_body_and_follows_the_seed():
    hu = head()
    one, same = (
        noise_fields(hu, 2.0, [Kernel(0.3)], torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(one, same)
    assert one[0, hu > -300].square().mean() == pytest.approx(1, rel=1e-4)
    spectrum = spectrum_of_field(one[0])
    assert spectrum.shape == (WINDOW, WINDOW)
    assert spectrum[0, 0] < 0.2 * spectrum.mean()  # the ramp takes the mean away


def test_streaks_run_along_the_rays_that_pass_most():
    """Behind two dense rods noise is stronger on the line between them, along that line."""
    hu = head()
    y = torch.arange(SIDE)[:, None]
    x = torch.arange(SIDE)[None, :]
    for column in (50, 110):
        hu = torch.where(torch.hypot(y - 80.0, x - column + 0.0) < 8, 3000.0, hu)
    fields = noise_fields(hu, 2.0, [Kernel(0.3)] * 6, torch.Generator().manual_seed(1))
    between, beside = fields[:, 76:85, 66:95], fields[:, 110:119, 66:95]
    assert between.std() > 1.3 * beside.std()
    along = (between[:, :, 1:] * between[:, :, :-1]).mean() / between.square().mean()
    across = (between[:, 1:] * between[:, :-1]).mean() / between.square().mean()
    assert along > across + 0.1
