"""The conditional diffusion model: independent noise, closed forms, reproducible samples."""

import pytest
import torch

from stillscan.models.denoisers.denoiser import Seeded
from stillscan.models.denoisers.diffusion import MODES, DiffusionDenoiser, Sampling
from stillscan.models.networks.blind_spot import BlindSpotNetwork
from stillscan.models.networks.conditional_diffusion import (
    DEFAULT,
    PAPER,
    Condition,
    DiffusionNetwork,
    Profile,
    centre_of,
    prediction_error,
)
from stillscan.models.sampling.schedule import NoiseSchedule
from stillscan.models.training.loop import Training, train
from stillscan.models.training.losses import DiffusionObjective, condition_and_target
from stillscan.models.training.noisy_images import NoisyImage, draw_noisy_batch
from tests.models.test_sampling import gaussian_predictor
from tests.models.test_student import white_profile

SIGMA = 0.1
SCHEDULE = NoiseSchedule.linear()
SMALL = {"widths": (8, 8, 8), "middle_blocks": 1}


def blind_spot():
    torch.manual_seed(0)
    return BlindSpotNetwork(0, width=4, blocks=1)


def batch(size=32):
    generator = torch.Generator().manual_seed(2)
    flat = torch.full((96, 96), 0.5) + SIGMA * torch.randn(96, 96, generator=generator)
    return draw_noisy_batch([NoisyImage(flat, white_profile(SIGMA))], size, 0, 0, 64)


def denoiser(profile=DEFAULT, **sampling):
    torch.manual_seed(1)
    network = DiffusionNetwork(profile, **SMALL)
    torch.nn.init.normal_(network.output.weight, std=0.1)
    return DiffusionDenoiser(blind_spot(), network, SCHEDULE, Sampling(**sampling))


def test_condition_and_target_have_independent_noise_in_the_default_profile():
    found = batch()
    condition, target = condition_and_target(blind_spot(), found, DEFAULT)
    n, m = condition.image - 0.5, target - 0.5
    correlation = (n * m).mean() / (n.std() * m.std())
    assert abs(float(correlation)) < 0.02
    assert float(n.std()) == pytest.approx(float(condition.sigma.mean()), rel=0.03)
    assert float(m.std()) == pytest.approx(float(condition.target_sigma.mean()), rel=0.03)


@pytest.mark.parametrize("sigma", [0.001, 0.3])
def test_the_centre_pixel_keeps_a_poor_blind_spot_within_the_noise(sigma):
    class FarOff(BlindSpotNetwork):
        """Predicts grey, and knows how far off that is."""

        def forward(self, image, level):
            return torch.full_like(image, 0.5), torch.full_like(image, 0.2 / sigma).log() * 2

    clean = torch.linspace(0, 1, 64 * 64).reshape(1, 1, 64, 64)
    noisy = clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    told = FarOff(0, width=4, blocks=1), noisy, torch.tensor([sigma]), torch.full_like(noisy, sigma)
    error = {
        put_back: float((centre_of(*told, Profile(centre_pixel=put_back)) - clean).std())
        for put_back in (False, True)
    }
    assert error[False] > 0.25
    assert error[True] < min(1.05 * sigma, 0.8 * error[False])


def test_a_centre_pixel_that_would_leak_is_refused():
    with pytest.raises(ValueError, match="recorruption"):
        Profile(recorruption=0.0, centre_pixel=True)


def test_condition_and_target_share_their_noise_as_published():
    found = batch(2)
    condition, target = condition_and_target(blind_spot(), found, PAPER)
    assert torch.equal(target, found.noisy)
    assert torch.equal(condition.image, found.noisy)


def test_an_untrained_network_is_the_exact_sampler_of_white_noise_around_the_condition():
    network = DiffusionNetwork(DEFAULT, **SMALL)
    found = batch(2)
    condition, _ = condition_and_target(blind_spot(), found, DEFAULT)
    z, a = torch.randn(2, 1, 64, 64), 0.3
    exact = gaussian_predictor(
        2 * condition.centre - 1, 2 * float(condition.target_sigma[0, 0, 0, 0])
    )
    z0_hat = network(z, torch.full((2,), a), condition)
    torch.testing.assert_close(z0_hat, exact(z, a), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_the_error_is_that_of_what_the_network_predicts(prediction):
    """From the definitions of eps and v at a wrong z_0."""
    profile = Profile(prediction, preconditioned=False)
    z0, eps, wrong = torch.randn(3, 1, 1, 8, 8).unbind(0)
    a = torch.full((1, 1, 1, 1), 0.6)
    z_t = a.sqrt() * z0 + (1 - a).sqrt() * eps

    def predicted(z0):
        eps = (z_t - a.sqrt() * z0) / (1 - a).sqrt()
        return {"eps": eps, "x0": z0, "v": a.sqrt() * eps - (1 - a).sqrt() * z0}[prediction]

    expected = (predicted(wrong) - predicted(z0)).abs()
    found = prediction_error(wrong - z0, a, profile, torch.ones(1, 1, 8, 8)).abs()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_z0_follows_from_what_the_network_predicts(prediction):
    network = DiffusionNetwork(Profile(prediction, preconditioned=False), **SMALL)
    torch.nn.init.constant_(network.output.bias, 0.25)
    found = batch(1)
    condition, _ = condition_and_target(blind_spot(), found, DEFAULT)
    z, a = torch.randn(1, 1, 64, 64), torch.tensor([0.6])
    z0_hat = network(z, a, condition)
    eps = (z - 0.6**0.5 * z0_hat) / 0.4**0.5
    said = {
        "eps": eps,
        "x0": z0_hat - (2 * condition.centre - 1),
        "v": 0.6**0.5 * eps - 0.4**0.5 * z0_hat,
    }[prediction]
    torch.testing.assert_close(said, torch.full_like(said, 0.25), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("profile", [DEFAULT, PAPER], ids=["default", "published"])
def test_training_lowers_the_loss(profile):
    network = DiffusionNetwork(profile, **SMALL)
    training = Training.begin(network, 1e-2)
    objective = DiffusionObjective(blind_spot(), SCHEDULE)
    same = batch(4)

    def always():
        while True:
            same.generator.manual_seed(0)
            yield same

    reported = [step.loss for step in train(training, always(), objective, 60, 2e-2)]
    assert reported[-1] < 0.97 * reported[0]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_the_same_bits_for_the_same_seed(mode):
    image, profile = torch.rand(1, 1, 37, 41), white_profile(SIGMA)
    one = denoiser(mode=mode, steps=3).seeded([7])
    again = denoiser(mode=mode, steps=3).seeded([7])
    other = denoiser(mode=mode, steps=3).seeded([8])
    assert isinstance(one, Seeded)
    mean = one.denoise(image, profile).mean
    assert mean.shape == image.shape
    assert torch.equal(mean, again.denoise(image, profile).mean)
    assert not torch.equal(mean, other.denoise(image, profile).mean)


@pytest.mark.parametrize("pairs", [1, 2, 4])
def test_srds_of_a_batch_is_srds_of_its_images(pairs):
    images, profile = torch.rand(2, 1, 32, 32), white_profile(SIGMA)
    together = denoiser(steps=3, pairs=pairs).seeded([4, 9]).denoise(images, profile)
    for number, seed in enumerate((4, 9)):
        alone = denoiser(steps=3, pairs=pairs).seeded([seed])
        estimate = alone.denoise(images[number : number + 1], profile)
        torch.testing.assert_close(
            together.mean[number], estimate.mean[0], rtol=0, atol=5e-3
        )  # bfloat16 sums in another order


def test_recorruptions_lower_the_dependence_on_the_seed():
    image, profile = torch.rand(1, 1, 32, 32), white_profile(SIGMA)

    def difference(recorruptions):
        one, other = (
            denoiser(mode="one_step", recorruptions=recorruptions)
            .seeded([seed])
            .denoise(image, profile)
            .mean
            for seed in (1, 1000)
        )
        return float((one - other).square().mean())

    assert difference(16) < 0.4 * difference(1)


def test_a_condition_repeats_batch_after_batch():
    planes = torch.arange(2.0).view(2, 1, 1, 1)
    condition = Condition(planes, planes, planes, torch.zeros(2, 7), planes)
    assert condition.repeated(2).centre.flatten().tolist() == [0, 1, 0, 1]
