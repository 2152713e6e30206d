"""Insertion tests say what they claim: kept, erased, invented, by rules with closed forms."""

import math

import pytest
import torch

from stillscan.app.evaluation.lesions import (
    VISIBLE,
    _free_of_mean,
    contrast_to_noise,
    disc,
    draw_lesions,
    insert,
    read_lesions,
    read_places,
    response_deviation,
)
from stillscan.app.evaluation.noise_cases import noise_case

CASE = noise_case("gaussian 15")
CLEAN = torch.full((256, 256), 0.5)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def lesions(generator):
    return draw_lesions(CLEAN, CASE, generator)


def test_the_noisy_image_keeps_every_lesion_whole(lesions, generator):
    noisy = CASE.add(CLEAN, generator)
    readings = list(read_lesions(insert(noisy, lesions), noisy, lesions))
    assert len(readings) == 40
    assert {reading.kind for reading in readings} == {"disc", "line", "texture"}
    assert all(each.share == pytest.approx(1, abs=1e-3) and each.kept for each in readings)


def test_a_method_that_sees_nothing_erases_every_lesion(lesions):
    assert not any(each.kept for each in read_lesions(CLEAN, CLEAN, lesions))


def test_a_share_of_the_contrast_is_read_as_that_share(lesions):
    half = CLEAN + 0.4 * (insert(CLEAN, lesions) - CLEAN)
    for reading in read_lesions(half, CLEAN, lesions):
        assert reading.share == pytest.approx(0.4, abs=1e-3)
        assert not reading.kept


def test_lesions_lie_in_the_foreground_and_apart(generator):
    clean = CLEAN.clone()
    clean[:, :128] = 0.02
    found = draw_lesions(clean, CASE, generator)
    assert found
    assert all(lesion.window(clean).min() > 0.1 for lesion in found)
    places = torch.tensor([[lesion.row, lesion.column] for lesion in found]).float()
    assert torch.pdist(places).min() >= 32


@pytest.mark.parametrize("name", ["gaussian 15", "correlated 1.2 px 15"])
def test_visibility_is_in_units_of_what_the_filter_reads_of_noise(name, generator):
    case = noise_case(name)
    template = _free_of_mean(disc(7))
    read = []
    for _ in range(400):
        noise = case.add(torch.zeros(60, 60), generator)
        read.append((noise[20:35, 20:35] * template).sum())
    assert torch.stack(read).std().item() == pytest.approx(
        response_deviation(template, case), rel=0.1
    )


def test_visibility_of_a_disc_in_white_noise_is_its_contrast_times_the_root_of_its_area(lesions):
    for lesion in lesions:
        if lesion.kind == "disc":
            energy = lesion.shape.square().sum().item() - lesion.shape.sum().item() ** 2 / (
                lesion.shape.numel()
            )
            expected = lesion.contrast_sigma * math.sqrt(energy)
            assert lesion.visibility == pytest.approx(expected, rel=1e-4)


def test_noise_alone_invents_at_one_place_in_eighty(generator):
    """P(|N(0, 1)| >= 2.5) = 1.24 %."""
    found = [read_places(CASE.add(CLEAN, generator), CLEAN, CASE) for _ in range(4)]
    empty, invented = (sum(getattr(each, name) for each in found) for name in ("empty", "invented"))
    assert empty > 10_000
    assert invented / empty == pytest.approx(0.0124, abs=0.003)


def test_the_truth_invents_and_erases_nothing(generator):
    clean = CLEAN + 0.3 * torch.rand(256, 256, generator=generator)
    places = read_places(clean, clean, CASE)
    assert places.invented == places.erased == 0


def test_a_lesion_that_is_not_there_is_found(generator):
    """As strong as is just visible: the place where it lies must count, and few others."""
    template = _free_of_mean(disc(12))
    contrast = VISIBLE * response_deviation(template, CASE) / (disc(12) * template).sum().item()
    false = CLEAN.clone()
    false[96:116, 96:116] += contrast * disc(12)
    places = read_places(false, CLEAN, CASE)
    assert 1 <= places.invented <= 40


def test_structure_that_is_smoothed_away_is_found():
    clean = CLEAN.clone()
    clean[96:116, 96:116] += 0.4 * disc(12)
    places = read_places(CLEAN, clean, CASE)
    assert places.structures > 0
    assert places.erased == places.structures
    assert places.invented == 0


def test_contrast_to_noise_is_that_of_discs_on_white_noise(generator):
    lesions = draw_lesions(CLEAN, CASE, generator)
    strong = [each for each in lesions if each.kind == "disc" and each.size == 12]
    noisy = insert(CASE.add(CLEAN, generator), strong)
    expected = sum(each.contrast_sigma for each in strong) / len(strong)
    assert contrast_to_noise(noisy, CLEAN, strong) == pytest.approx(expected, rel=0.25)
    assert math.isnan(contrast_to_noise(noisy, CLEAN, []))
