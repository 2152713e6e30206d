"""Objectives without a clean image: what they estimate is the error against the clean image."""

import pytest
import torch
from torch import nn

from stillscan.models.networks.student import StudentNetwork
from stillscan.models.noise.profile import CORRELATION_LAGS
from stillscan.models.training import losses
from stillscan.models.training.loop import Training, train
from stillscan.models.training.noisy_images import NoisyImage, draw_noisy_batch
from tests.models.test_noisy_images import correlated_profile
from tests.models.test_student import white_profile

SIGMA = 0.1


class Shrink(nn.Module):
    """`x_hat = y - sigma f`, f = share * (y - blurred y) / sigma: a denoiser with known risk."""

    def __init__(self, share):
        super().__init__()
        self.share = nn.Parameter(torch.tensor(share))

    def forward(self, image, sigma, correlation):
        del correlation
        local = nn.functional.avg_pool2d(image, 3, 1, 1, count_include_pad=False)
        return self.share * (image - local) / sigma, torch.zeros_like(image)


def clean_image(size=400):
    x = torch.linspace(0, 12, size)
    return 0.5 + 0.2 * (torch.sin(x)[:, None] * torch.cos(2 * x)[None])


def batch_and_truth(profile, size=24):
    """Noisy patches and their clean ones: the label carries the truth through the same cuts."""
    from stillscan.models.noise.synthesis import correlated_noise, spectrum_of

    x = clean_image()
    spectrum = spectrum_of(torch.from_numpy(profile.acf).float(), 400, 400)
    y = x + profile.sigma * correlated_noise(spectrum, torch.Generator().manual_seed(5))
    batch = draw_noisy_batch([NoisyImage(y, profile, label=x)], size, 0, 0)
    return batch, batch.label


def true_risk(network, batch, truth):
    predicted, _ = network(batch.noisy, batch.sigma, batch.correlation)
    risk = (batch.noisy - batch.sigma * predicted - truth).square().mean()
    return float(risk.detach()) / SIGMA**2


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("length", [0.0, 1.0])
def test_sure_estimates_the_true_risk_for_white_and_for_correlated_noise(share, length):
    profile = correlated_profile(SIGMA, length, length)
    batch, truth = batch_and_truth(profile)
    network = Shrink(share)
    found = float(losses.sure(network, batch).reported.detach())
    assert found == pytest.approx(true_risk(network, batch, truth), abs=0.05)


def test_recorrupted_pairs_rank_denoisers_as_the_truth_does():
    batch, truth = batch_and_truth(white_profile(SIGMA))
    shares = (0.0, 0.3, 0.6, 0.9, 1.2)
    risks = [true_risk(Shrink(share), batch, truth) for share in shares]
    found = []
    for share in shares:
        batch.generator.manual_seed(0)
        found.append(float(losses.recorrupted(Shrink(share), batch).reported.detach()))
    assert sorted(shares, key=lambda s: found[shares.index(s)]) == sorted(
        shares, key=lambda s: risks[shares.index(s)]
    )


def test_neighbours_are_two_different_adjacent_pixels_of_a_cell():
    plane = torch.zeros(1, 1, 16, 16)
    first, second = losses.neighbours(plane, torch.Generator().manual_seed(0))
    assert (first != second).all()
    row, column = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 0])  # clockwise
    distance = (row[first] - row[second]).abs() + (column[first] - column[second]).abs()
    assert (distance == 1).all()


def test_cells_hold_the_pixels_clockwise():
    plane = torch.arange(16.0).view(1, 1, 4, 4)
    assert losses.cells(plane)[0, :, 0, 0].tolist() == [0, 1, 5, 4]


def test_every_second_pixel_has_the_correlation_of_twice_the_lag():
    acf = torch.rand(1, 9, 9)
    found = losses.subsampled_correlation(acf)[0]
    assert found[0] == acf[0, 4, 6]
    assert found[CORRELATION_LAGS.index((0, 3))] == 0


def test_noise2void_looks_only_at_hidden_pixels():
    """A network that gives back what it sees is wrong exactly where pixels were replaced."""
    batch, _ = batch_and_truth(white_profile(SIGMA))
    loss = float(losses.noise2void(Shrink(0.0), batch).reported.detach())
    assert loss == pytest.approx(2.0, rel=0.15)  # the difference of two independent noises


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    [
        losses.recorrupted,
        losses.sure,
        losses.neighbor2neighbor,
        losses.noise2void,
        losses.distillation,
    ],
)
def test_every_objective_brings_a_small_network_nearer_to_the_truth(objective):
    torch.manual_seed(0)
    network = StudentNetwork(widths=(8, 8, 8), middle_blocks=1)
    training = Training.begin(network, 1e-2, decay=0.5)
    held_out, truth = batch_and_truth(white_profile(SIGMA), size=8)
    x = clean_image()
    y = x + SIGMA * torch.randn(400, 400, generator=torch.Generator().manual_seed(9))
    noisy = NoisyImage(y, white_profile(SIGMA), label=x)
    batches = (draw_noisy_batch([noisy], 4, 0, n, 64) for n in range(10**6))
    for _ in train(training, batches, objective, 60, 1e-2):
        pass
    assert true_risk(training.network, held_out, truth) < 0.8
