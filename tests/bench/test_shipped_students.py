"""The shipped students keep what their figures say: on subjects they never saw, told nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stillscan.app.datasets.development_data import subjects
from stillscan.app.datasets.repeated_scans import repeats
from stillscan.app.evaluation.blind_denoising import denoise_blind
from stillscan.app.evaluation.noise_cases import NAMES, noise_case
from stillscan.app.evaluation.peers import nlm
from stillscan.models.bundle import load_mode
from stillscan.models.denoisers.noise_everywhere import denoise_with_noise_everywhere
from stillscan.models.metrics.image_quality import psnr
from stillscan.models.noise.estimation import estimate_noise_profile
from stillscan.operators.denoising import plan
from tests.remembered import remembered

BUNDLES = Path(__file__).resolve().parents[2] / "models" / "bundles"
nlm_of = remembered(nlm)  # it takes no student
DOMAINS = ["mr", "xray", "ct"]
SIGNAL = 0.1  # of the brightest: below lies air
FAINT = ("gaussian 1", "gaussian 2")
OF_EVERY_KIND = ("gaussian 1", "gaussian 6", "gaussian 25", "correlated 1.2 px 15", "poisson 200")
pytestmark = [pytest.mark.data, pytest.mark.slow]


@pytest.fixture(scope="module", params=["student", "fast_student", "fast_student int8"])
def mode(request):
    return request.param


@pytest.fixture(scope="module")
def students(mode):
    """As the application runs them; the bundle for CT has no int8."""
    name, _, precision = mode.partition(" ")
    how = dict.fromkeys(DOMAINS, ("cpu", precision, "openvino") if precision else ())
    how["ct"] = ()
    return {domain: load_mode(BUNDLES / domain, name, *how[domain])[0] for domain in DOMAINS}


@pytest.fixture(scope="module", autouse=True)
def noise_of_an_image_is_measured_once():
    """It does not depend on the student."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "measure_noise", remembered(plan.measure_noise))
        yield


@pytest.fixture(scope="module")
def middle_slices(stillscan_data):
    """One slice of each subject, by domain."""
    return {
        domain: [slices[len(slices) // 2] for _, slices in subjects(stillscan_data, "test", domain)]
        for domain in DOMAINS
    }


def with_noise(clean, name):
    return noise_case(name).add(torch.from_numpy(clean), torch.Generator().manual_seed(7)).numpy()


def psnr_of(image, clean):
    return psnr(torch.from_numpy(image), torch.from_numpy(clean))


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize(("name", "margin"), [("gaussian 15", 1.0), ("correlated 1.2 px 15", 2.5)])
def test_students_stand_above_nlm(middle_slices, mode, students, domain, name, margin):
    for clean in middle_slices[domain]:
        noisy = with_noise(clean, name)
        student = psnr_of(denoise_blind(students[domain], noisy[None])[0], clean)
        peer = psnr_of(nlm_of(noisy), clean)
        assert student >= peer + (margin if mode == "student" else margin / 2)
        assert student > psnr_of(noisy, clean)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("name", [each for each in NAMES if each not in FAINT])
def test_students_are_never_below_the_noisy_image(middle_slices, students, domain, name):
    """From 3/255 on: below, the radiographs' own noise in the "truth" is as large."""
    clean = middle_slices[domain][0]
    noisy = with_noise(clean, name)
    student = denoise_blind(students[domain], noisy[None])[0]
    assert psnr_of(student, clean) >= psnr_of(noisy, clean)


@pytest.fixture(scope="module")
def repeated(stillscan_data):
    """Both scans of each repeated one, and their places, by name."""
    found = {}
    for repeat in repeats(stillscan_data / "dev"):
        scale = float(np.quantile(repeat.first, 0.999))
        first, second = (repeat.first / scale).astype(np.float32), repeat.second / scale
        found[repeat.name] = first, second, repeat.places
    return found


@pytest.fixture(scope="module")
def series_ratios(repeated, students):
    """Of every slice of every repeated scan, denoised as a series."""
    return {name: ratios(students["mr"], *each) for name, each in repeated.items()}


def test_every_slice_of_every_repeated_scan_comes_nearer_to_its_repeat(series_ratios):
    """Those that hold their slices again are also judged by that, as in the application."""
    for name, each in series_ratios.items():
        assert (each < 1).all(), name


def test_repeats_inside_a_series_put_the_students_above_nlm(repeated, students):
    """Where there is signal, as the repeats judge; six sevenths of the phantom are air."""
    phantom, brain = (name for name in repeated if name.startswith("EPI"))
    for name, slices in ((phantom, range(0, 64, 8)), (brain, range(0, 60, 6))):
        first, second, places = repeated[name]
        at = list(slices)
        signal = (first[at] + second[at]) / 2 > SIGNAL
        cleaned = denoise_blind(students["mr"], first, places)[at]
        by_nlm = np.stack([nlm_of(first[each]) for each in at])
        ours, peer = (
            np.sqrt(np.square(each - second[at])[signal].mean()) for each in (cleaned, by_nlm)
        )
        assert ours < peer, name


def test_single_slices_of_repeated_scans_are_not_spoilt(repeated, mode, students):
    """Small and full of structure: one slice may bear no level out, then it stays as it is."""
    for name, (first, second, _) in repeated.items():
        for at in range(min(8, len(first))):
            one = slice(at, at + 1)
            ratio = ratios(students["mr"], first[one], second[one]).max()
            assert ratio < (1.0025 if "int8" in mode else 1.001), f"{name}, slice {at}"


@pytest.mark.parametrize("name", ["gaussian 6", "gaussian 25"])
@pytest.mark.parametrize(("domain", "dark"), [("mr", 0.04), ("ct", 0.03), ("xray", 0.03)])
def test_air_without_noise_costs_the_body_nothing(middle_slices, students, domain, dark, name):
    """Told the truth, in the foreground; without the noise that fills the air up to 5 dB less."""
    for clean in map(torch.from_numpy, middle_slices[domain]):
        air = torch.nn.functional.avg_pool2d(clean[None], 7, 1, 3)[0] < dark
        case = noise_case(name)
        noisy = case.add(clean, torch.Generator().manual_seed(7))
        masked = noisy.masked_fill(air, 0)
        everywhere, zero_air = (
            denoise_with_noise_everywhere(
                students[domain], image[None, None], case.profile(clean[None])
            ).mean[0, 0]
            for image in (noisy, masked)
        )
        assert (zero_air[air] == 0).all()
        before, after = (psnr(image, clean, where=~air) for image in (everywhere, zero_air))
        assert after > before - 0.25


@pytest.mark.parametrize(("domain", "most"), [("mr", 0.06), ("xray", 0.07)])
def test_int8_loses_a_twentieth_of_a_decibel(middle_slices, domain, most):
    """Told the truth, in the mean of the noises; `most` for any of them: the strongest."""
    exact, _ = load_mode(BUNDLES / domain, "fast_student")
    rounded, _ = load_mode(BUNDLES / domain, "fast_student", "cpu", "int8", "openvino")
    slices = [torch.from_numpy(pixels) for pixels in middle_slices[domain]]
    losses = []
    for case in map(noise_case, OF_EVERY_KIND):
        for clean in slices:
            noisy = case.add(clean, torch.Generator().manual_seed(7))
            profile = case.profile(clean[None])
            found = (d.denoise(noisy[None, None], profile).mean[0, 0] for d in (exact, rounded))
            before, after = (psnr(image, case.mean(clean)) for image in found)
            losses.append(before - after)
    assert np.mean(losses) < 0.05
    assert max(np.reshape(losses, (len(OF_EVERY_KIND), -1)).mean(1)) < most


def ratios(student, first, second, places=None):
    """Error against the repeat, after over before, of each slice."""
    cleaned = denoise_blind(student, first, places)
    return np.sqrt(((cleaned - second) ** 2).mean((1, 2)) / ((first - second) ** 2).mean((1, 2)))


@pytest.mark.parametrize("domain", DOMAINS)
def test_stated_deviations_cover_the_error(middle_slices, students, domain):
    """Within one and two of them: a normal law has 68 % and 95 %."""
    clean = torch.from_numpy(middle_slices[domain][0])
    noisy = noise_case("gaussian 15").add(clean, torch.Generator().manual_seed(7))
    estimate = students[domain].denoise(noisy[None, None], estimate_noise_profile([noisy]))
    error = (estimate.mean[0, 0] - clean).abs() / estimate.spread[0, 0]
    error = error[clean > 0.1]
    assert 0.6 < (error < 1).float().mean() < 0.85
    assert 0.88 < (error < 2).float().mean() < 0.99
