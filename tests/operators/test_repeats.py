"""Series that hold their slices again: what the repeats say of noise, and of the correction."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest
import torch

from stillscan.models.denoisers.denoiser import Estimate, IdentityDenoiser
from stillscan.operators.denoising.denoise_series import (
    checked_by_repeats,
    denoise_volume,
    plan_series,
)
from stillscan.operators.denoising.plan import plan_from, read_sample
from stillscan.operators.denoising.repeats import acquired_again, are_alike, check_against_repeats
from stillscan.operators.graph.messages import Method, SeriesSource
from stillscan.operators.graph.stages import WritingStage, in_turn
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import find_series, read_series
from stillscan.operators.writing.derive_series import OutputOptions
from tests.derived import EVERYTHING, STUDENT
from tests.series_factory import make_series

SIGMA = 40.0
SIDE = 64


def planned(volume):
    return plan_from(read_sample(volume))


def repeat_check(denoiser, volume):
    return checked_by_repeats(read_sample(volume), planned(volume), denoiser)


class Blurring:
    """Takes structure away with the noise, but no more than the gate lets pass."""

    def denoise(self, image, noise):
        mean = torch.nn.functional.avg_pool2d(image, 3, 1, 1, count_include_pad=False)
        return Estimate(image - 0.25 * (image - mean))


class Knowing:
    """Knows the clean images, in the order of the calls."""

    def __init__(self, clean):
        self.clean = clean

    def denoise(self, image, noise):
        return Estimate(self.clean(image))


def clean_slices(count):
    """Coarse grain everywhere: no part is flat."""
    grain = torch.from_numpy(np.random.default_rng(1).standard_normal((count, 1, SIDE, SIDE)))
    coarse = torch.nn.functional.avg_pool2d(grain, 3, 1, 1)
    return (1500 + 600 * coarse[:, 0]).numpy()


@pytest.fixture
def series(tmp_path):
    """`series(volumes=3)`: the volume of a series of 4 slices, each acquired so often."""
    with Decoder() as decoder:

        def read(volumes=3, noise=SIGMA, **arguments):
            files = make_series(
                tmp_path / "in",
                slices=4 * volumes,
                rows=SIDE,
                columns=SIDE,
                ImagePositionPatient=lambda index: ["0", "0", str(index % 4 * 3)],
                **arguments,
            )
            rng = np.random.default_rng(3)
            clean = clean_slices(4)
            for index, file in enumerate(files):
                dataset = pydicom.dcmread(file)
                noisy = clean[index % 4] + noise * rng.standard_normal((SIDE, SIDE))
                dataset.PixelData = np.clip(np.rint(noisy), 0, 4095).astype(np.uint16).tobytes()
                dataset.save_as(file)
            (candidate,) = find_series(tmp_path / "in", decoder, EVERYTHING).candidates
            return read_series(candidate, decoder)

        yield read


def test_a_slice_is_held_against_its_next_acquisition_or_the_one_before():
    places = [(0,), (3,), (0,), (3,), (0,), (6,), None, None]
    assert acquired_again(places, range(8)) == [2, 3, 4, 1, 2, None, None, None]


def test_direction_tells_places_apart(series):
    volume = series(volumes=2)
    places = [each.place for each in volume.slices]
    assert len(set(places)) == 4
    assert places[:4] == places[4:]
    assert all(len(place) == 9 for place in places)


def test_noise_is_known_where_no_part_is_flat(series):
    """Alone, nothing tells these images' grain from correlated noise."""
    volume = series()
    alone = replace(volume, slices=tuple(replace(each, place=None) for each in volume.slices))
    assert planned(volume).noise_before == pytest.approx(SIGMA, rel=0.1)
    assert planned(alone).noise_before > 3 * SIGMA
    assert read_sample(alone).again == (None,) * 8


def test_the_same_image_twice_says_nothing(series):
    volume = series(volumes=2, noise=0.0)
    alone = replace(volume, slices=tuple(replace(each, place=None) for each in volume.slices))
    plans = [planned(each) for each in (volume, alone)]
    assert repeat_check(Blurring(), volume) is None
    profiles = [plan.noise for plan in plans]
    assert profiles[0].sigma == profiles[1].sigma
    assert profiles[0].sigmas == profiles[1].sigmas


def test_of_a_correction_that_blurs_only_a_part_is_applied(series):
    volume = series()
    _, plan = plan_series(volume, Blurring())
    assert plan.repeats.slices == 8
    assert plan.repeats.confirmed_share < 0.5
    assert plan.repeats.before == pytest.approx(SIGMA * np.sqrt(2), rel=0.05)
    assert plan.repeats.after <= plan.repeats.before
    (block,) = denoise_volume(Blurring(), volume)
    assert block.repeats == plan.repeats
    clean = np.tile(clean_slices(4), (3, 1, 1))
    full = block.block.pixels + (block.pixels - block.block.pixels) / plan.repeats.confirmed_share
    before, part, whole = (
        np.square(pixels - clean).mean() for pixels in (block.block.pixels, block.pixels, full)
    )
    assert part < before < whole


def test_a_correction_that_takes_noise_alone_is_applied_whole(series):
    """What is left of the noise is that of the other acquisition."""
    volume = series()
    scaling = planned(volume).scaling
    clean = torch.from_numpy(scaling.to_network(clean_slices(4).astype(np.float32)))

    def nearest(image):
        at = (image[:, 0, None] - clean).square().mean((2, 3)).argmin(1)
        return clean[at][:, None]

    _, plan = plan_series(volume, Knowing(nearest))
    assert plan.repeats.confirmed_share >= 0.97
    assert plan.repeats.after == pytest.approx(SIGMA, rel=0.05)


def test_a_series_whose_repeats_support_nothing_is_refused_before_anything_is_written(
    series, tmp_path
):
    """What is sharpened becomes less like its repeat: there is nothing to show."""

    class Sharpening(Blurring):
        def denoise(self, image, noise):
            return Estimate(2 * image - super().denoise(image, noise).mean)

    volume = series()
    (tmp_path / "out").mkdir()
    writing = WritingStage(tmp_path / "out", OutputOptions(), page_mb=None, watch=lambda _: None)
    source = SeriesSource(
        volume.series_instance_uid, tuple(each.path for each in volume.slices), lambda: volume
    )
    for message in in_turn([source], {"MR": Method(Sharpening(), STUDENT)}):
        writing.take(message)
    (outcome,) = writing.outcomes
    assert (outcome.status, outcome.reason) == ("refused", "quality-gate")
    assert "do not support the denoised result" in outcome.message
    assert not list((tmp_path / "out").rglob("*.dcm"))


def test_no_correction_needs_no_judge(series):
    volume = series()
    assert repeat_check(IdentityDenoiser(), volume) is None


@pytest.mark.parametrize(("share", "expected"), [(0.5, 1.0), (1.0, 1.0), (2.0, 0.5), (-1.0, 0.0)])
def test_the_share_is_that_of_least_error(share, expected):
    """Noise n, correction -share * n: 1 / share of it is right, and never more than all."""
    rng = np.random.default_rng(0)
    clean = rng.standard_normal(100_000)
    one, other = (clean + 0.3 * rng.standard_normal(clean.size) for _ in range(2))
    check = check_against_repeats([(one, one - share * (one - clean), other)])
    assert check.confirmed_share == pytest.approx(expected, abs=0.02)
    shown = one - check.confirmed_share * share * (one - clean)
    assert check.after == pytest.approx(np.sqrt(np.square(other - shown).mean()), rel=1e-6)


def test_another_contrast_is_no_judge(series):
    """An echo that is darker everywhere says nothing of what was taken from the first."""
    volume = series(volumes=2)

    class SecondDarker:
        def read(self, slices):
            headers, stored = volume.reader.read(slices)
            first = [volume.slices.index(each) < 4 for each in slices]
            factor = np.where(first, 1.0, 0.3)[:, None, None]
            return headers, (stored * factor).astype(stored.dtype)

    changed = replace(volume, reader=SecondDarker())
    assert read_sample(changed).again == (4, 5, 6, 7, 0, 1, 2, 3)
    assert repeat_check(Blurring(), volume) is not None
    assert repeat_check(Blurring(), changed) is None


def test_acquisitions_are_alike_that_differ_by_little_more_than_noise():
    rng = np.random.default_rng(0)
    one, other = 0.1 * rng.standard_normal((2, 10_000))
    sigma = np.full(one.shape, 0.1)
    assert are_alike(one, other, sigma)
    assert are_alike(one, other, sigma / 2.5)
    assert not are_alike(one, other, sigma / 3.5)
    assert are_alike(one, 0.4 * one + 0.9 * other, sigma)
    assert not are_alike(one, 0.9 * one + 0.4 * other, sigma)
    assert not are_alike(one[:0], other[:0], sigma[:0])
