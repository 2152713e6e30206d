"""Training: an example follows from seed and number; a killed run goes on as if unbroken."""

import itertools
from dataclasses import replace

import pytest
import torch

from stillscan.models.networks.student import StudentNetwork
from stillscan.models.training.dead_leaves import dead_leaves
from stillscan.models.training.loop import Training, train
from stillscan.models.training.losses import paired, smoothing_matrix, supervised
from stillscan.models.training.noisy_examples import TrainingImage, draw_batch, given_conditioning
from stillscan.operators.denoising.pass_through import PassThrough


@pytest.fixture(scope="module")
def images():
    import numpy as np

    rng = np.random.default_rng(0)
    return [TrainingImage(torch.from_numpy(dead_leaves(96, rng))) for _ in range(3)]


def batches(images, start=0):
    return (draw_batch(images, 2, seed=1, number=n) for n in itertools.count(start))


def small_training():
    torch.manual_seed(0)
    return Training.begin(StudentNetwork(widths=(8, 8, 8), middle_blocks=1), 1e-3)


def test_a_batch_depends_on_seed_and_number_alone(images):
    first, again = (draw_batch(images, 2, seed=1, number=7) for _ in range(2))
    other = draw_batch(images, 2, seed=1, number=8)
    assert torch.equal(first.noisy, again.noisy)
    assert not torch.equal(first.noisy, other.noisy)


def test_the_clean_image_is_the_noisy_one_minus_its_noise(images):
    flat = [TrainingImage(torch.full((80, 80), 0.5))]
    batch = draw_batch(flat, 16, seed=0, number=0)
    clean = batch.noisy - batch.noise
    # a flat image stays flat under every family (Rician: at its own mean)
    assert clean.std((1, 2, 3)).max() < 1e-4


def test_told_level_is_near_the_noise_for_most_examples(images):
    batch = draw_batch(images, 64, seed=0, number=0)
    level = batch.sigma.square().mean((1, 2, 3)).sqrt()
    ratio = batch.noise.std((1, 2, 3)) / level
    assert 0.9 < ratio.median() < 1.1
    assert ((ratio > 0.75) & (ratio < 1.33)).float().mean() > 0.6


def test_badly_told_examples_stay_in_their_range():
    generator = torch.Generator().manual_seed(0)
    factors = [given_conditioning(torch.zeros(7), generator)[0] for _ in range(500)]
    assert min(factors) > 0.6
    assert 2 < max(factors) <= 3.0


@pytest.mark.slow
def test_training_lowers_the_loss(images):
    training = small_training()
    always_the_same = itertools.repeat(draw_batch(images, 2, seed=1, number=0))
    losses = [step.loss for step in train(training, always_the_same, supervised, 100, 2e-2)]
    assert losses[-1] < losses[0] - 1.0


def test_a_resumed_run_ends_where_an_unbroken_one_does(images):
    unbroken = small_training()
    for _ in train(unbroken, batches(images), supervised, 6, 1e-3):
        pass

    killed = small_training()
    steps = train(killed, batches(images), supervised, 6, 1e-3)
    for _ in range(3):
        next(steps)
    resumed = small_training()
    resumed.load_state_dict(killed.state_dict())
    for _ in train(resumed, batches(images, start=3), supervised, 6, 1e-3):
        pass
    for one, other in zip(unbroken.network.parameters(), resumed.network.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_procedural_images_are_on_the_unit_interval(images):
    for image in images:
        assert image.pixels.min() >= 0
        assert image.pixels.max() <= 1
        assert image.pixels.std() > 0.01


def test_the_smoothing_matrix_is_the_gaussian_of_the_pass_through():
    image = torch.randn(1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    matrix = smoothing_matrix(torch.tensor([2.0]), 40)
    expected = PassThrough(0.0, (2.0, 2.0)).smoothed(image[0])
    torch.testing.assert_close((matrix @ image @ matrix.mT)[0], expected, atol=1e-4, rtol=1e-3)
    assert smoothing_matrix(torch.tensor([0.0]), 40).abs().max() == 0


class Fixed(torch.nn.Module):
    """Takes the true noise, and a share of the lesions, whatever it sees."""

    def __init__(self, batch, share):
        super().__init__()
        self.parameter = torch.nn.Parameter(torch.zeros(()))
        taken = torch.cat([batch.noise, batch.noise + share * batch.lesions])
        self.taken = taken / batch.sigma.repeat(2, 1, 1, 1)

    def forward(self, image, sigma, correlation):
        return self.taken + 0 * self.parameter, torch.zeros_like(self.taken)


@pytest.mark.parametrize("counted_from", [1.5, 2.5])
def test_the_paired_loss_charges_the_energy_of_the_lesions_that_is_taken(images, counted_from):
    batch = draw_batch(images, 8, seed=3, number=0)
    kept, half, all_ = (
        (
            paired(2.0, counted_from)(Fixed(batch, share), batch).total.item()
            - paired(0.0)(Fixed(batch, share), batch).total.item()
        )
        for share in (0.0, 0.5, 1.0)
    )
    weight = ((batch.visibility - counted_from) / (5 - counted_from)).clamp(0, 1)
    assert kept == pytest.approx(0, abs=1e-5)
    assert all_ == pytest.approx(2 * float(weight.mean()), rel=0.01)
    assert half == pytest.approx(all_ / 4, rel=0.01)


def test_noise_of_a_slice_itself_is_used_at_its_place(images):
    field = torch.randn(1, 96, 96, generator=torch.Generator().manual_seed(0))
    field[..., 48:] *= 3
    own = [TrainingImage(images[0].pixels, fields=field, unpassed=0.0)]
    batch = draw_batch(own, 4, seed=0, number=0)
    assert (batch.passed > 0).all()
    assert (draw_batch([replace(own[0], unpassed=1.0)], 4, seed=0, number=0).passed == 0).all()
    strongest, weakest = (
        pick(
            torch.stack(
                [
                    batch.noise[:, 0, :20].std((1, 2)),
                    batch.noise[:, 0, -20:].std((1, 2)),
                    batch.noise[:, 0, :, :20].std((1, 2)),
                    batch.noise[:, 0, :, -20:].std((1, 2)),
                ]
            ),
            0,
        ).values
        for pick in (torch.max, torch.min)
    )
    assert (strongest > 1.8 * weakest).all()
