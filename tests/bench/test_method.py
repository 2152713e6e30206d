"""The comparison of training methods: every row learns from the same noisy images."""

import itertools

import pytest
import torch

from bench.studies.method import (
    LEVELS,
    ROWS,
    SEED,
    StagePlan,
    clean_batches,
    noisy_copies,
    train_row,
    white_profile,
)
from bench.studies.no_new_denoiser import UnconditionalNetwork, UnconditionalObjective, draw
from stillscan.models.networks.weights import load_network
from stillscan.models.noise.estimation import estimate_noise_profile
from stillscan.models.sampling.schedule import NoiseSchedule
from stillscan.models.training.noisy_examples import TrainingImage


@pytest.fixture(scope="module")
def clean():
    x = torch.linspace(0, 20, 160)
    pixels = 0.5 + 0.3 * torch.sin(x)[:, None] * torch.cos(x / 3)[None]
    return [TrainingImage(pixels, 0.0), TrainingImage(pixels.T.contiguous(), 20 / 255)]


def test_noisy_copies_are_drawn_once_and_told_the_truth(clean):
    first, again = (list(noisy_copies(clean, SEED)) for _ in range(2))
    for one, other, source in zip(first, again, clean, strict=True):
        assert torch.equal(one.pixels, other.pixels)
        measured = float((one.pixels - source.pixels).std())
        assert measured == pytest.approx(one.profile.sigma, rel=0.03)
        assert LEVELS[0] <= one.profile.sigma


def test_noise_is_at_least_twice_what_an_image_brings_along(clean):
    *_, own = noisy_copies(clean, SEED)
    assert own.profile.sigma >= 40 / 255


def test_the_told_profile_is_white(clean):
    profile = white_profile(0.1)
    assert profile.radius == 0
    flat = [0.5 + 0.1 * torch.randn(128, 128, generator=torch.Generator().manual_seed(0))]
    assert estimate_noise_profile(flat).sigma == pytest.approx(profile.sigma, rel=0.1)


def test_a_supervised_batch_depends_on_its_number_alone(clean):
    plan = StagePlan(10, batch=3, patch=64)
    run = list(itertools.islice(clean_batches(clean, plan, 0), 3))
    later = next(clean_batches(clean, plan, 2))
    assert torch.equal(run[2].noisy, later.noisy)
    assert run[0].noisy.shape == (3, 1, 64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["recorrupted", "supervised", "blind_spot"])
def test_a_row_trains_to_its_end_and_goes_on_after_a_kill(tmp_path, clean, name):
    from dataclasses import replace

    row = replace(ROWS[name], plan=StagePlan(3, batch=2, patch=32))
    noisy = list(noisy_copies(clean, SEED))
    for folder in (tmp_path / "one", tmp_path / "other"):
        folder.mkdir()
        train_row(name, row, folder, clean, noisy)
    one, other = (load_network(tmp_path / n / f"{name}.safetensors") for n in ("one", "other"))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_an_unconditional_loss_is_that_of_its_prediction(prediction, clean):
    """A network that says nothing: its loss is the power of what it should have said."""
    network = UnconditionalNetwork(prediction)
    torch.nn.init.zeros_(network.output.weight)
    torch.nn.init.zeros_(network.output.bias)
    batch = next(clean_batches(clean, StagePlan(1, batch=64, patch=64), 0))
    loss = UnconditionalObjective(NoiseSchedule.linear(), 0.0)(network, batch).reported.detach()
    z0 = 2 * (batch.noisy - batch.noise) - 1
    power = float(z0.square().mean())
    expected = {"eps": 1.0, "x0": power}.get(prediction)
    if expected is None:
        assert min(1.0, power) < float(loss) < max(1.0, power)
    else:
        assert float(loss) == pytest.approx(expected, rel=0.05)


def test_the_grid_is_drawn(tmp_path):
    rows = [
        ["A", "linear", "eps", "False", "one step", "1", "33.0", "0.9", "0.01"],
        ["B", "linear", "v", "False", "SRDS", "20", "34.0", "0.9", "0.02"],
    ]
    draw(rows, tmp_path / "grid.png")
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")
