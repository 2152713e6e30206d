"""The CT phantom: what an observer reads of its discs follows from their contrast and the noise."""

import math

import pytest
import torch

from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.app.evaluation.blind_denoising import denoise_series
from stillscan.app.evaluation.low_contrast import (
    DISCS,
    delivered,
    doses,
    inserted,
    kept_contrast,
    with_discs,
)
from stillscan.models.bundle import load_bundle

SIGMA = 20 / 4095  # 20 HU


@pytest.fixture
def absent():
    generator = torch.Generator().manual_seed(0)
    return 0.25 + SIGMA * torch.randn(4, 256, 256, generator=generator)


def test_every_angle_has_every_disc(absent):
    added = with_discs(absent) - absent.repeat(8, 1, 1)
    energy = sum(d.contrast_hu / 4095 * math.pi / 4 * d.diameter**2 for d in DISCS)
    for image in added:
        assert image.sum().item() == pytest.approx(energy, rel=0.05)


def test_detectability_in_white_noise_is_near_that_of_the_ideal_observer(absent):
    """Contrast / sigma * root of the area; five channels see nearly all of a disc."""
    found = inserted(with_discs(absent), absent)
    for disc, read in zip(DISCS, found.discs, strict=True):
        ideal = disc.contrast_hu / 20 * math.sqrt(math.pi / 4) * disc.diameter
        assert read == pytest.approx(ideal, rel=0.4)
    assert found.low < found.mean < found.high


def test_scaling_changes_no_detectability_and_blanking_removes_it(absent):
    bearing = with_discs(absent)
    assert inserted(0.3 * bearing, 0.3 * absent).mean == pytest.approx(
        inserted(bearing, absent).mean, rel=1e-3
    )
    flat = torch.randn(absent.shape, generator=torch.Generator().manual_seed(1))
    assert inserted(flat.repeat(8, 1, 1), flat).mean == 0


@pytest.mark.data
def test_more_dose_makes_discs_easier_to_see(stillscan_data):
    found = [inserted(with_discs(dose.absent), dose.absent) for dose in doses(stillscan_data)]
    low, middle, high = (each.mean for each in found)
    assert low < middle < high


@pytest.mark.data
def test_the_delivered_images_are_read_at_the_places_of_the_discs(stillscan_data):
    """At full dose the four discs together are seen, beyond the interval of four realisations."""
    dose = list(doses(stillscan_data))[-1]
    found = delivered(dose.present, dose.absent)
    assert found.low > 0
    assert delivered(dose.absent, dose.absent).mean == 0


def test_contrast_is_kept_whole_by_the_source_and_by_half_of_it_half(absent):
    present = with_discs(absent)
    assert kept_contrast(present, absent) == pytest.approx([1.0] * len(DISCS), rel=0.02)
    assert kept_contrast(0.5 * present, 0.5 * absent) == pytest.approx([0.5] * 4, rel=0.02)


@pytest.mark.slow
@pytest.mark.data
def test_the_shipped_ct_network_keeps_low_contrast(stillscan_data):
    """At full dose: d' within 3 % of the source, half of every disc's contrast, 70 % less noise."""
    denoiser = load_bundle(DEFAULT_BUNDLES / "ct").denoiser
    absent = list(doses(stillscan_data))[-1].absent
    shown, *bearing = (
        denoise_series(denoiser, each, gated=True, modality="CT").slices
        for each in (absent, *torch.split(with_discs(absent), len(absent)))
    )
    present = torch.cat(bearing)
    assert inserted(present, shown).mean >= 0.97 * inserted(with_discs(absent), absent).mean
    assert min(kept_contrast(present, shown)) >= 0.5
    flat = (slice(None), slice(100, 156), slice(100, 156))
    before, after = ((each - each.mean(0))[flat].std() for each in (absent, shown))
    assert after <= 0.3 * before
