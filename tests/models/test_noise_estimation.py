"""The noise profile: what it says of noise that was put on real slices, told nothing about it."""

import numpy as np
import pytest
import torch

from stillscan.app.datasets.development_data import subjects
from stillscan.models.noise import synthesis
from stillscan.models.noise.estimation import NoNoiseError, estimate_noise_profile
from stillscan.models.noise.levels import Levels, fit_curve
from stillscan.models.noise.profile import MAX_LAG
from stillscan.models.training.dead_leaves import dead_leaves
from tests.remembered import remembered

SUBJECTS = [  # name in the record of the split, array
    ("mr_siemens_prisma_t1_sag", ""),
    ("ulf055T_and_3T_patient_6B", "hf_T1w"),
    ("mr_siemens_sola_enhanced_acr_t1", ""),
    ("cxr[20:24]", ""),
    ("ct_chest_transfer_syntaxes/CTImage.dcm", ""),
]
LEVELS = (15 / 255, 25 / 255)


@pytest.fixture(scope="module")
def real_slices(stillscan_data):
    """Four slices of each subject that no network is trained on."""
    found = {}
    for part in ("validate", "test"):
        for item, slices in subjects(stillscan_data, part):
            found[item.name, item.array] = torch.from_numpy(slices[:: max(1, len(slices) // 4)][:4])
    return found


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@remembered
def own_variance(clean):
    return estimate_noise_profile(list(torch.from_numpy(clean))).sigma ** 2


def true_sigma(clean, noisy):
    """Root mean square over the signal of what was added and what the image brought along."""
    signal = clean > 0.1 * np.quantile(clean.numpy(), 0.98)
    return float(((noisy - clean)[signal].square().mean() + own_variance(clean.numpy())).sqrt())


def on_all(clean, add):
    return torch.stack([add(image) for image in clean])


@pytest.mark.data
@pytest.mark.parametrize("sigma", LEVELS, ids=["15", "25"])
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: " ".join(s).strip())
def test_white_noise_is_found_within_ten_percent(real_slices, subject, sigma, generator):
    clean = real_slices[subject]
    noisy = on_all(clean, lambda image: synthesis.add_gaussian(image, sigma, generator))
    profile = estimate_noise_profile(list(noisy))
    assert profile.sigma == pytest.approx(true_sigma(clean, noisy), rel=0.10)
    assert profile.radius == 0


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(("length", "radius"), [(0.5, 1), (1.2, 3)])
@pytest.mark.parametrize("sigma", LEVELS, ids=["15", "25"])
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: " ".join(s).strip())
def test_correlated_noise_is_found_within_twenty_percent(
    real_slices, subject, sigma, length, radius, generator
):
    clean = real_slices[subject]
    noisy = on_all(clean, lambda image: synthesis.add_correlated(image, sigma, length, generator))
    profile = estimate_noise_profile(list(noisy))
    assert profile.sigma == pytest.approx(true_sigma(clean, noisy), rel=0.20)
    assert profile.radius == radius


@pytest.mark.data
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: " ".join(s).strip())
@pytest.mark.parametrize("family", ["poisson", "gamma"])
def test_signal_dependent_noise_is_found_within_ten_percent(
    real_slices, subject, family, generator
):
    """About 15/255 where the image is half bright."""
    clean = real_slices[subject].clamp(min=0)
    add = {
        "poisson": lambda image: synthesis.add_poisson(image, 0.5 / LEVELS[0] ** 2, generator),
        "gamma": lambda image: synthesis.add_gamma(image, (0.5 / LEVELS[0]) ** 2, generator),
    }[family]
    noisy = on_all(clean, add)
    profile = estimate_noise_profile(list(noisy))
    assert profile.sigma == pytest.approx(true_sigma(clean, noisy), rel=0.10)


@pytest.mark.data
@pytest.mark.parametrize("family", ["gaussian", "poisson", "gamma"])
def test_the_family_is_recognised_on_radiographs(real_slices, family, generator):
    clean = real_slices["cxr[20:24]", ""]
    sigma = LEVELS[0]
    add = {
        "gaussian": lambda image: synthesis.add_gaussian(image, sigma, generator),
        "poisson": lambda image: synthesis.add_poisson(image, 0.5 / sigma**2, generator),
        "gamma": lambda image: synthesis.add_gamma(image, (0.5 / sigma) ** 2, generator),
    }[family]
    assert estimate_noise_profile(list(on_all(clean, add))).family == family


@pytest.fixture
def phantom():
    """A body in air that is exactly zero."""
    rng = np.random.default_rng(5)
    body = torch.from_numpy(dead_leaves(256, rng)) * 0.3 + 0.4
    y, x = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    inside = (y - 128) ** 2 + (x - 128) ** 2 < 90**2
    return body * inside, inside


def test_air_that_is_exactly_zero_does_not_fool_it(phantom, generator):
    clean, inside = phantom
    noisy = synthesis.add_gaussian(clean, 0.05, generator) * inside
    assert estimate_noise_profile([noisy]).sigma == pytest.approx(0.05, rel=0.1)


def test_padding_does_not_fool_it(phantom, generator):
    clean, inside = phantom
    noisy = torch.where(inside, synthesis.add_gaussian(clean, 0.05, generator), torch.tensor(-2.0))
    profile = estimate_noise_profile([noisy], [inside])
    assert profile.sigma == pytest.approx(0.05, rel=0.1)


def test_interpolated_noise_is_told_as_correlated(phantom, generator):
    """Noise that was zero-filled to twice the matrix in k-space, as scanners do."""
    clean, _ = phantom
    spectrum = synthesis.zero_filled_spectrum(256, 256, 0.5, 0.5, 0.0)
    noisy = clean + 0.05 * synthesis.correlated_noise(spectrum, generator)
    profile = estimate_noise_profile([noisy])
    expected = synthesis.autocorrelation(spectrum)
    assert profile.sigma == pytest.approx(0.05, rel=0.2)
    assert profile.acf[MAX_LAG, MAX_LAG + 1] == pytest.approx(expected[0, 1].item(), abs=0.1)


def test_rician_noise_is_read_from_air(phantom, generator):
    clean, _ = phantom
    profile = estimate_noise_profile([synthesis.add_rician(clean, 0.03, generator)])
    assert profile.family == "rician"
    air = profile.sigma_map(torch.full((1, 1, 16, 16), 0.037)).mean().item()
    assert air == pytest.approx(0.655 * 0.03, rel=0.1)


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_constant_image_holds_no_noise(value):
    with pytest.raises(NoNoiseError):
        estimate_noise_profile([torch.full((64, 64), value)])


def test_a_ramp_holds_no_noise():
    with pytest.raises(NoNoiseError):
        estimate_noise_profile([torch.linspace(0, 1, 64)[None].expand(64, 64).contiguous()])


@pytest.mark.parametrize("size", [(7, 9), (16, 16), (40, 300)])
def test_small_and_narrow_images_give_a_finite_profile(size, generator):
    image = synthesis.add_gaussian(torch.full(size, 0.5), 0.05, generator)
    profile = estimate_noise_profile([image])
    assert 0.01 < profile.sigma < 0.1


def test_a_rescaled_image_has_the_rescaled_profile(phantom, generator):
    clean, _ = phantom
    noisy = synthesis.add_gaussian(clean, 0.05, generator)
    profile = estimate_noise_profile([noisy]).rescaled(100.0, 0.0)
    again = estimate_noise_profile([100 * noisy])
    assert again.sigma == pytest.approx(profile.sigma, rel=0.02)


@pytest.mark.parametrize("radius", [60, 94])
def test_the_blurred_rim_of_a_body_does_not_count_as_noise(radius, generator):
    # a round body fills every range of intensity with rim that varies alike: back-projected CT
    y, x = np.mgrid[:256, :256] - 127.5
    body = torch.from_numpy(np.clip((radius - np.hypot(y, x)) / 6 + 0.5, 0, 1)).float()
    spectrum = synthesis.backprojection_spectrum(256, 256, 0.25, 2.0)
    slices = [
        0.006 + 0.244 * body + 0.0056 * synthesis.correlated_noise(spectrum, generator)
        for _ in range(4)
    ]
    assert estimate_noise_profile(slices).sigma == pytest.approx(0.0056, rel=0.1)


@pytest.mark.data
@pytest.mark.parametrize("dose", ["010", "055", "100"])
def test_the_noise_of_the_simulated_ct_phantom_is_found(stillscan_data, dose):
    with np.load(stillscan_data / "dev/arrays/repeat_ct_lcd_SIMULATED.npz") as arrays:
        images = arrays[f"d{dose}_signal_absent"].astype(np.float32)
    slices = torch.from_numpy((images + 24) / 4095)
    middle = slices[:, 100:156, 100:156]
    sigma = float((middle - middle.mean(0)).square().sum(0).div(len(slices) - 1).mean().sqrt())
    assert estimate_noise_profile(list(slices)).sigma == pytest.approx(sigma, rel=0.25)


def test_quiet_air_says_which_of_two_curves_it_is():
    centres = np.array([0.01, 0.4, 0.5, 0.6])
    poisson = levels_at(centres, 0.005 * centres)
    constant = levels_at(centres, np.full(4, 0.0025))
    assert fit_curve(poisson).family == "poisson"
    assert fit_curve(constant).family == "gaussian"


def test_masked_air_says_nothing_of_the_signal():
    centres = np.array([0.01, 0.4, 0.5, 0.6])
    masked = levels_at(centres, np.array([1e-7, 0.0025, 0.0025, 0.0025]))
    assert fit_curve(masked).family == "gaussian"


def levels_at(centres, variances):
    return Levels(centres, variances, counts=np.full(4, 200.0), purity=np.full(4, 0.8))


def arrays_of(stillscan_data, name):
    with np.load(stillscan_data / "dev" / "arrays" / f"{name}.npz") as arrays:
        images = arrays["data"].astype(np.float32)
    return torch.from_numpy(images.reshape(-1, *images.shape[-2:]))


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("count", [1, 2, 3, 6])
@pytest.mark.parametrize(
    ("name", "sigma"),
    # of the first two the repeats know it; the third is a mean of 27 scans: an upper bound
    [
        ("repeat_epi_ge_phantom", 26.0),
        ("repeat_epi_siemens_xa30", 6.0),
        ("clean_t1_colin27_axial", 1.0),
    ],
)
def test_smooth_structure_is_not_taken_for_correlated_noise(stillscan_data, name, sigma, count):
    """Small or quiet and full of structure: at most, too little noise is found."""
    slices = arrays_of(stillscan_data, name)[:48]
    for start in range(0, len(slices) - count + 1, 5):
        profile = estimate_noise_profile(list(slices[start : start + count]))
        assert profile.sigma < 1.5 * sigma, f"slices {start} to {start + count - 1}"


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "slices", "sigma"),
    [("repeat_epi_ge_phantom", 8, 26.0), ("repeat_epi_siemens_xa30", 6, 4.5)],
)
def test_repeats_tell_the_noise_of_structured_series(stillscan_data, name, slices, sigma):
    """`sigma`: of the differences in time, where little moves or beats."""
    images = arrays_of(stillscan_data, name)
    one, other = list(images[:slices]), list(images[slices : 2 * slices])
    assert estimate_noise_profile(one).sigma < 0.3 * sigma
    assert estimate_noise_profile(one, again=other).sigma == pytest.approx(sigma, rel=0.2)


def grain(number):
    """Everywhere, and as Gaussian as noise."""
    generator = torch.Generator().manual_seed(number)
    white = torch.randn(1, 64, 64, generator=generator)
    return 0.5 + 0.15 * torch.nn.functional.avg_pool2d(white, 3, 1, 1)[0]


def test_the_lower_of_two_proven_levels_holds(generator):
    """Grain raises the level of one acquisition, a change of grain that of the difference."""

    def acquired(clean):
        return [synthesis.add_gaussian(image, 0.01, generator) for image in clean]

    grains, flat = [grain(number) for number in range(8)], [torch.full((64, 64), 0.5)] * 8
    assert estimate_noise_profile(acquired(grains)).sigma > 0.03
    for clean, changed in ((grains, grains), (flat, grains)):
        profile = estimate_noise_profile(acquired(clean), again=acquired(changed))
        assert profile.sigma == pytest.approx(0.01, rel=0.1)


def test_slices_without_a_repeat_are_left_to_themselves(generator):
    slices = [synthesis.add_gaussian(torch.full((64, 64), 0.5), 0.02, generator) for _ in range(2)]
    alone = estimate_noise_profile(slices)
    for again in ([None, None], [slices[0], slices[1]]):
        assert estimate_noise_profile(slices, again=again).sigmas == alone.sigmas


@pytest.mark.parametrize("repeated", [False, True])
def test_an_empty_slice_says_nothing_of_the_noise(generator, repeated):
    edges = (torch.arange(48)[:, None] // 3 + torch.arange(48) // 3) % 2 * 800.0

    def acquired():
        return [edges + 20 * torch.randn(edges.shape, generator=generator) for _ in range(3)]

    slices, others = acquired(), acquired() if repeated else None
    known = estimate_noise_profile(slices, None, others)
    empty = torch.zeros_like(edges)
    with_empty = estimate_noise_profile(
        [*slices, empty], None, None if others is None else [*others, empty]
    )
    assert with_empty.sigma == known.sigma
