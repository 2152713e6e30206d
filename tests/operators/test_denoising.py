"""From volume to quiet volume: identity changes nothing, padding stays, strength does as said."""

import numpy as np
import pytest
import torch

from stillscan.models.denoisers.denoiser import Estimate, IdentityDenoiser
from stillscan.operators.denoising.denoise_series import (
    denoise_block,
    denoise_volume,
)
from stillscan.operators.denoising.gate_limits import GateLimits
from stillscan.operators.denoising.intensity import Scaling, scaling_for, without_padding
from stillscan.operators.denoising.plan import plan_from, read_sample
from stillscan.operators.errors import NoiseOutsideBundleError, NoNoiseInSeriesError
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import find_series, read_series
from tests.derived import EVERYTHING
from tests.series_factory import make_series


def planned(volume, noise_range=None):
    return plan_from(read_sample(volume), noise_range)


class HalfDenoiser:
    """Takes away half of the difference from the local mean; says it errs by a tenth of sigma."""

    def denoise(self, image, noise):
        mean = torch.nn.functional.avg_pool2d(image, 3, 1, 1, count_include_pad=False)
        spread = torch.full_like(image, 0.1 * noise.sigma)
        return Estimate(mean=image - 0.3 * (image - mean), spread=spread)


@pytest.fixture
def read(tmp_path):
    """`read(modality="CT")` gives the volume of a generated series."""
    with Decoder() as decoder:

        def volume_of(**arguments):
            make_series(tmp_path / "in", **arguments)
            (candidate,) = find_series(tmp_path / "in", decoder, EVERYTHING).candidates
            return read_series(candidate, decoder)

        yield volume_of


@pytest.mark.parametrize("modality", ["MR", "CT", "PT", "CR", "DX"])
def test_identity_gives_back_every_pixel(read, modality):
    volume = read(modality=modality)
    for denoised in denoise_volume(IdentityDenoiser(), volume):
        assert np.array_equal(denoised.pixels, denoised.block.pixels)
        assert denoised.verdict.decision == "accept"


def test_padding_is_never_changed(read):
    volume = read(modality="CT", padding=-2000, signed=True)
    for denoised in denoise_volume(HalfDenoiser(), volume):
        padding = denoised.block.padding
        assert padding.any()
        assert np.array_equal(denoised.pixels[padding], denoised.block.pixels[padding])
        assert not np.array_equal(denoised.pixels, denoised.block.pixels)


def test_no_estimate_is_below_no_signal(read):
    """Magnitude images have no negative values, so a negative estimate would only be clipped."""

    class Darker:
        def denoise(self, image, noise):
            return Estimate(mean=image - 0.5 * noise.sigma * (image < 0.2))

    volume = read(modality="MR")
    block = volume.read(0, 1)
    assert block.pixels.min() >= 0
    assert denoise_block(Darker(), block, planned(volume)).pixels.min() >= 0


def test_strength_is_the_share_of_the_correction(read):
    volume = read(modality="MR")
    plan = planned(volume)
    block = volume.read(0, 2)
    full = denoise_block(HalfDenoiser(), block, plan, 1.0).pixels - block.pixels
    half = denoise_block(HalfDenoiser(), block, plan, 0.5).pixels - block.pixels
    np.testing.assert_allclose(half, full / 2, atol=1e-3)
    assert np.abs(full).max() > 1


def test_less_strength_leaves_more_error(read):
    """What is shown errs by the estimate's error and by the noise that was left in."""
    volume = read(modality="MR")
    plan, block = planned(volume), volume.read(0, 1)
    full = denoise_block(HalfDenoiser(), block, plan, 1.0)
    half = denoise_block(HalfDenoiser(), block, plan, 0.5)
    np.testing.assert_allclose(full.spread, 0.1 * plan.noise_before, rtol=1e-4)
    np.testing.assert_allclose(
        half.spread, np.hypot(0.5 * full.spread, 0.5 * full.sigma), rtol=1e-4
    )


def test_the_plan_does_not_grow_with_the_series(read):
    assert len(planned(read(modality="MR", slices=30, rows=32, columns=32)).sample) == 8


def test_noise_of_the_series_is_told_in_modality_units(read):
    """The factory's noise is 2 % of the stored range."""
    volume = read(modality="MR", slices=6, rows=128, columns=128, slope=2.0)
    assert planned(volume).noise_before == pytest.approx(2 * 0.02 * 4096, rel=0.25)


def test_a_constant_series_is_refused(tmp_path, read):
    volume = read(modality="MR")

    class Constant:
        def read(self, slices):
            headers, stored = volume.reader.read(slices)
            return headers, np.full_like(stored, 7)

    from dataclasses import replace

    with pytest.raises(NoNoiseInSeriesError):
        planned(replace(volume, reader=Constant()))


def test_noise_beyond_the_bundle_is_refused(read):
    with pytest.raises(NoiseOutsideBundleError):
        planned(read(modality="MR"), noise_range=(0.0, 1e-4))


@pytest.mark.parametrize("values", [np.linspace(-1024, 3071, 7), np.array([0.0, 1e-3, 65535.0])])
def test_scaling_is_invertible(values):
    scaling = Scaling(-1024.0, 3071.0)
    pixels = values.astype(np.float32)
    np.testing.assert_allclose(
        scaling.to_modality(scaling.to_network(pixels)), pixels, rtol=1e-6, atol=1e-3
    )


def test_hounsfield_scale_is_fixed_and_others_follow_the_series():
    sample = np.linspace(0, 500, 1001, dtype=np.float32)
    assert scaling_for("HU", sample) == Scaling(-1024.0, 3071.0)
    assert scaling_for("1", sample).high == pytest.approx(499.5, abs=0.5)
    assert scaling_for("1", sample - 100).low == -100


class RecordingSeeds:
    """Gives the image back and remembers which seeds it was given."""

    def __init__(self):
        self.seen = []

    def seeded(self, seeds):
        self.seen += seeds
        return self

    def denoise(self, image, noise):
        return Estimate(mean=image)


def test_padding_becomes_the_smallest_real_value_of_its_slice():
    pixels = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
    padding = np.zeros(pixels.shape, np.bool_)
    padding[0, 0, :2] = True
    padding[2] = True  # a slice without anything real
    replaced = without_padding(pixels, padding)
    assert replaced.dtype == np.float32
    assert replaced[0].tolist() == [[2, 2, 2, 3], [4, 5, 6, 7]]
    assert np.array_equal(replaced[1:], pixels[1:])
    for each, where, expected in zip(pixels, padding, replaced, strict=True):
        assert np.array_equal(without_padding(each, where), expected)
    assert np.shares_memory(without_padding(pixels[1], padding[1]), pixels)


def test_a_slice_has_the_seed_of_its_uids_whatever_its_block(read):
    volume = read()
    blocks = [volume.read(0, 4), volume.read(0, 1), volume.read(1, 4)]
    plan, recording = planned(volume), RecordingSeeds()
    for block in blocks:
        denoise_block(recording, block, plan)
    whole, parts = recording.seen[:4], recording.seen[4:]
    assert whole == parts
    assert len(set(whole)) == 4


class Blurring:
    """Takes away more than there is noise: the gate puts structure back, and draws back."""

    def denoise(self, image, noise):
        mean = torch.nn.functional.avg_pool2d(image, 5, 1, 2, count_include_pad=False)
        return Estimate(mean=mean - 0.01, spread=torch.full_like(image, noise.sigma))


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_how_a_series_is_cut_into_blocks_changes_no_pixel(read, modality):
    volume = read(modality=modality)
    plan = planned(volume)
    limits = GateLimits(residual_mean=10.0, residual_deviation=50.0, clamped_share=1.0)
    whole = denoise_block(Blurring(), volume.read(0, 4), plan, limits=limits)
    assert whole.verdict.measurements["clamped_share"] > 0
    for number in range(4):
        part = denoise_block(Blurring(), volume.read(number, number + 1), plan, limits=limits)
        assert np.array_equal(part.pixels[0], whole.pixels[number])
        assert np.array_equal(part.sigma[0], whole.sigma[number])
        assert not np.array_equal(part.pixels, part.block.pixels)
