"""The gate: what leaves is bounded at every scale, and judged."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillscan.models.noise import synthesis
from stillscan.models.noise.profile import MAX_LAG
from stillscan.operators.denoising.gate import Verdict, combine, judge
from stillscan.operators.denoising.gate_limits import GateLimits
from stillscan.operators.denoising.multiscale_clamp import SCALES, clamp, scores, smoothed_deviation
from stillscan.operators.denoising.pass_through import PassThrough

LIMITS = GateLimits()
SIZE = 192


def white_acf():
    acf = np.zeros((2 * MAX_LAG + 1, 2 * MAX_LAG + 1))
    acf[MAX_LAG, MAX_LAG] = 1
    return acf


def gaussian_acf(length):
    spectrum = synthesis.gaussian_spectrum(SIZE, SIZE, length, length)
    full = torch.fft.fftshift(synthesis.autocorrelation(spectrum)).numpy()
    middle = SIZE // 2
    span = slice(middle - MAX_LAG, middle + MAX_LAG + 1)
    return full[span, span].astype(np.float64)


def noise_of(length, count, seed=0):
    """Unit noise [slice, row, column] with the correlation of `gaussian_acf(length)`."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = synthesis.gaussian_spectrum(SIZE, SIZE, length, length)
    return torch.stack([synthesis.correlated_noise(spectrum, generator) for _ in range(count)])


def bump(height, radius):
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    return (height * np.exp(-(x**2 + y**2) / (2 * radius**2))).astype(np.float32)


@pytest.mark.parametrize("length", [0.0, 0.5, 1.2])
@pytest.mark.parametrize("scale", SCALES)
def test_scores_of_pure_noise_have_unit_deviation(length, scale):
    z = scores(noise_of(length, 60), gaussian_acf(length))[SCALES.index(scale)]
    inner = z[:, 16:-16, 16:-16]  # beyond the edge the smoothed residual is zero
    assert inner.std().item() == pytest.approx(1, rel=0.12)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    strength=st.floats(0, 40),
    length=st.sampled_from([0.0, 0.5, 1.2]),
    limit=st.floats(1.5, 6),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
def test_no_score_exceeds_the_limit_after_the_clamp(seed, strength, length, limit, size):
    """The bound holds for any residual, whatever made it."""
    rng = np.random.default_rng(seed)
    residual = rng.standard_normal((2, *size)) * strength * rng.random((2, *size)) ** 4
    residual = torch.from_numpy(residual.astype(np.float32))
    acf = gaussian_acf(length)
    clamped = clamp(residual, acf, limit)
    assert clamped.weight.min() >= 0
    assert clamped.weight.max() <= 1
    for z in scores(clamped.weight * residual, acf):
        assert z.abs().max() <= limit * 1.001


def test_what_stays_below_the_limit_is_not_touched():
    residual = 0.3 * noise_of(0.0, 2)
    clamped = clamp(residual, white_acf(), 4.5)
    assert torch.equal(clamped.weight, torch.ones_like(residual))


def test_the_clamp_is_local():
    """A wiped-out lesion is put back; far from it everything stays as the denoiser left it."""
    residual = 0.8 * noise_of(0.0, 1)
    residual[0] += torch.from_numpy(bump(6.0, 3.0))
    weight = clamp(residual, white_acf(), 4.5).weight[0]
    assert weight[SIZE // 2, SIZE // 2] < 0.5
    assert (weight[:16] == 1).all()


def gated(noisy, denoised, sigma=0.1, acf=None):
    level = np.full_like(noisy, sigma)
    return judge(noisy, denoised, level, white_acf() if acf is None else acf, LIMITS)


@pytest.fixture
def images():
    """A flat image, its noisy version, and a good estimate that removes 90 % of the noise."""
    clean = np.full((1, SIZE, SIZE), 0.5, np.float32)
    noisy = clean + 0.1 * noise_of(0.0, 1).numpy()
    return clean, noisy, (noisy + 9 * clean) / 10


def test_a_good_estimate_is_accepted_as_it_is(images):
    _, noisy, good = images
    pixels, verdict = gated(noisy, good)
    assert verdict.decision == "accept"
    assert np.array_equal(pixels, good)


def test_no_change_is_always_accepted(images):
    _, noisy, _ = images
    pixels, verdict = gated(noisy, noisy)
    assert verdict.decision == "accept"
    assert np.array_equal(pixels, noisy)


@pytest.mark.parametrize("sign", [1, -1], ids=["invented", "erased"])
@pytest.mark.parametrize("radius", [1.5, 3.0, 6.0])
def test_a_planted_structure_is_clamped(images, sign, radius):
    """Invented: the estimate shows a lesion that is not there. Erased: it lacks one that is."""
    _, noisy, good = images
    acf = white_acf()
    lesion = bump(1.0, radius)
    unit = max(float(z.abs().max()) for z in scores(torch.from_numpy(lesion[None] / 0.1), acf))
    lesion = lesion * (9 / unit)  # noise-free z of 9
    pixels, verdict = gated(noisy, good + sign * lesion)
    assert verdict.decision == "accept with clamp"
    shown = (pixels - good)[0, SIZE // 2, SIZE // 2] / lesion[SIZE // 2, SIZE // 2]
    assert abs(shown) < 0.75
    assert verdict.measurements["clamped_share"] > 0


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda noisy, good: np.full_like(good, np.nan), "not-finite"),
        (lambda noisy, good: good + 0.03, "mean-moved"),
        (lambda noisy, good: noisy - 3 * (noisy - 0.5), "more-change-than-noise"),
        (lambda noisy, good: good[:, ::-1] * np.linspace(0.5, 1.5, SIZE), "structure-changed"),
    ],
)
def test_a_bad_estimate_is_refused_and_what_came_in_stays(images, spoil, reason):
    _, noisy, good = images
    pixels, verdict = gated(noisy, spoil(noisy, good).astype(np.float32))
    assert verdict.decision == "refuse"
    assert reason in verdict.reasons
    assert np.array_equal(pixels, noisy)


def test_more_change_than_noise_is_drawn_back_to_the_noise(images):
    clean, noisy, _ = images
    pixels, verdict = gated(noisy, noisy - 1.5 * (noisy - clean))
    assert verdict.decision == "accept with clamp"
    assert "change-drawn-back" in verdict.reasons
    assert ((noisy - pixels) / 0.1).std() <= LIMITS.residual_deviation * 1.001


def test_every_figure_is_finite_on_odd_shapes():
    for shape in [(1, 1, 1), (2, 1, 7), (1, 2, 2), (1, 5, 300)]:
        noisy = np.zeros(shape, np.float32)
        _, verdict = gated(noisy, noisy)
        assert all(np.isfinite(value) for value in verdict.measurements.values())


def test_the_deviation_of_smoothed_noise_is_never_zero():
    assert all(smoothed_deviation(-white_acf(), scale) > 0 for scale in SCALES)


def test_a_series_is_as_bad_as_its_worst_block():
    good = Verdict("accept", (), {"residual_mean": 0.01})
    clamped = Verdict("accept with clamp", ("structure-clamped",), {"residual_mean": 0.05})
    bad = Verdict("refuse", ("mean-moved",), {"residual_mean": 0.5})
    assert combine([good, good]).decision == "accept"
    assert combine([good, clamped]).decision == "accept with clamp"
    series = combine([clamped, bad, good])
    assert series.decision == "refuse"
    assert series.reasons == ("structure-clamped", "mean-moved")
    assert series.measurements["residual_mean"] == 0.5


def test_coarse_change_is_put_back_and_the_rest_is_judged_again():
    """The estimate removes the noise and, by mistake, a slow wave of 1.5 sigma."""
    rng = np.random.default_rng(2)
    x = np.linspace(0, 8 * np.pi, 128, dtype=np.float32)
    wave = 1.5 * np.sin(x)[None, :, None] * np.ones((1, 1, 128), np.float32)
    noise = rng.normal(size=(1, 128, 128)).astype(np.float32)
    clean = np.full((1, 128, 128), 50, np.float32)
    acf = np.zeros((9, 9))
    acf[4, 4] = 1
    sigma, limits = np.ones_like(clean), GateLimits()
    assert judge(clean + wave + noise, clean, sigma, acf, limits)[1].decision == "refuse"
    coarse = PassThrough(0.0, (3.0, 3.0))
    shown, verdict = judge(clean + wave + noise, clean, sigma, acf, limits, coarse=coarse)
    assert verdict.reasons[0] == "coarse-change-put-back"
    assert np.square(shown - clean - wave).mean() < 0.3
