"""Anomaly models: encoding, guidance, inpainting, codes, KL and thresholds against closed forms."""

import math

import pytest
import torch

from stillscan.models.anomaly.autoencoder import LatentAutoencoder, VectorQuantizer
from stillscan.models.anomaly.baselines import CoarseNoiseDenoiser, baselines
from stillscan.models.anomaly.calibration import HealthyScores, HealthyThresholds
from stillscan.models.anomaly.divergence import kl_map, kl_timesteps
from stillscan.models.anomaly.guided import GRADIENT, GUIDED, GuidedAnomalyModel
from stillscan.models.anomaly.latent import ROWS, LatentAnomalyModel
from stillscan.models.anomaly.prior import LatentDiffusion, NoisyClassifier
from stillscan.models.anomaly.sprites import SIZES, with_sprites
from stillscan.models.sampling.samplers import (
    ddim_sample,
    decode,
    encode,
    guided,
    inpaint_sample,
)
from stillscan.models.sampling.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.linear()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(deviation, mean=0.0):
    """The exact E[z_0 | z_t] for z_0 ~ N(mean, deviation^2)."""

    def predict(z, a):
        gain = math.sqrt(a) * deviation**2 / (a * deviation**2 + 1 - a)
        return mean + gain * (z - math.sqrt(a) * mean)

    return predict


@pytest.mark.parametrize(("deviation", "tolerance"), [(1.0, 0.002), (0.22, 0.002), (0.1, 0.02)])
def test_encoding_and_decoding_come_back(deviation, tolerance):
    z = deviation * torch.randn(1, 1, 8, 8, generator=seeded(), dtype=torch.float64)

    def gain(order):
        predict = gaussian(deviation)
        level = encode(predict, z, SCHEDULE, 25, 500, order)
        return float((decode(predict, level, SCHEDULE, 25, 500, order) / z).mean())

    assert abs(gain(2) - 1) < tolerance
    assert gain(1) < 1 - 3 * tolerance, "the plain encoder loses contrast: it is not the default"


def test_guidance_of_scale_zero_changes_nothing():
    z = torch.randn(2, 1, 4, 4, generator=seeded())
    predict = gaussian(0.5)
    shifted = guided(predict, lambda z, a: -z.square().sum((1, 2, 3)), 0.0)
    assert torch.equal(shifted(z, 0.3), predict(z, 0.3))


def test_guided_predictor_of_a_gaussian_pair_is_the_closed_form():
    """The mixture's estimate, guided by the exact classifier, is the estimate of its class."""
    deviation, means, a = 0.4, (-0.7, 0.9), 0.35
    z = torch.linspace(-1, 1, 16, dtype=torch.float64).view(16, 1, 1, 1)
    variance = a * deviation**2 + 1 - a

    def log_class(z, a):
        logs = [-((z - math.sqrt(a) * mean) ** 2) / 2 / variance for mean in means]
        return torch.log_softmax(torch.stack(logs), 0)

    def mixture(z, a):
        return sum(
            share * gaussian(deviation, mean)(z, a)
            for share, mean in zip(log_class(z, a).exp(), means, strict=True)
        )

    shifted = guided(mixture, lambda z, a: log_class(z.double(), a)[0], 1.0)
    torch.testing.assert_close(
        shifted(z, a), gaussian(deviation, means[0])(z, a), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_inpainting_keeps_what_is_not_masked(share):
    z_0, noise = (torch.randn(2, 3, 8, 8, generator=seeded(n)) for n in (1, 2))
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, : round(8 * share)] = 1
    predict = gaussian(0.4, 0.3)
    healed = inpaint_sample(predict, z_0, mask, noise, SCHEDULE, 10, 500)
    assert torch.equal(healed * (1 - mask), z_0 * (1 - mask))
    a = float(SCHEDULE.alpha_bar[500])
    begin = a**0.5 * z_0 + (1 - a) ** 0.5 * noise
    sampled = ddim_sample(predict, begin, SCHEDULE, 10, start=500)
    torch.testing.assert_close(healed * mask, sampled * mask)  # each place depends on itself


def test_quantizer_takes_the_nearest_code_and_passes_the_gradient_straight_through():
    quantizer = VectorQuantizer(16, 4).eval()
    z = torch.randn(2, 4, 3, 3, generator=seeded(), requires_grad=True)
    quantized = quantizer(z)
    vectors = z.detach().movedim(1, -1).reshape(-1, 4)
    nearest = torch.cdist(vectors, quantizer.codebook).argmin(1)
    expected = quantizer.codebook[nearest].reshape(2, 3, 3, 4).movedim(-1, 1)
    torch.testing.assert_close(quantized.detach(), expected, atol=1e-6, rtol=0)
    weight = torch.randn(quantized.shape, generator=seeded(1))
    (quantized * weight).sum().backward()
    assert torch.equal(z.grad, weight)


def test_codes_follow_their_vectors_as_monai_s_do_and_dead_codes_come_back():
    from monai.networks.layers.vector_quantizer import EMAQuantizer

    ours = VectorQuantizer(16, 4)
    theirs = EMAQuantizer(2, 16, 4, decay=0.99, ddp_sync=False)
    batch = torch.randn(16, 4, 8, 8, generator=seeded())
    ours.codebook.copy_(batch.movedim(1, -1).reshape(-1, 4)[:16])
    theirs.embedding.weight.data = ours.codebook.clone()
    start = torch.full((16,), 10.0)
    for counts, sums in (
        (ours.counts, ours.sums),
        (theirs.ema_cluster_size, theirs.ema_w),
    ):
        counts.data.copy_(start)
        sums.data.copy_(10 * ours.codebook)
    for _ in range(3):
        made, expected = ours(batch), theirs(batch)[0]
        torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        ours.codebook.data, theirs.embedding.weight.data, rtol=1e-4, atol=1e-5
    )

    lost = VectorQuantizer(16, 4)
    lost.codebook.fill_(100.0)
    for _ in range(2):
        lost(batch)
    assert len(lost.nearest(batch).unique()) > 8


def test_kl_map_agrees_with_monai():
    from monai.inferers import DiffusionInferer
    from monai.networks.schedulers import DDPMScheduler

    z_0 = torch.randn(2, 3, 4, 4, generator=seeded())
    noise = torch.randn(z_0.shape, generator=seeded(1))
    times = kl_timesteps(5)

    class Network(torch.nn.Module):  # predicts noise, as MONAI's do
        def forward(self, x, timesteps, context=None):
            a = float(SCHEDULE.alpha_bar[int(timesteps[0])])
            return (x - a**0.5 * gaussian(0.6)(x, a)) / (1 - a) ** 0.5

    scheduler = DDPMScheduler(
        1000, beta_start=1e-4, beta_end=2e-2, variance_type="fixed_small", clip_sample=False
    )
    scheduler.timesteps = torch.tensor(times[::-1])
    inferer = DiffusionInferer(scheduler)
    torch.manual_seed(0)
    original, torch.randn_like = torch.randn_like, lambda x: noise
    try:
        _, maps = inferer.get_likelihood(
            z_0, Network(), scheduler, save_intermediates=True, verbose=False
        )
    finally:
        torch.randn_like = original
    expected = torch.stack(maps).mean(0).sum(1, keepdim=True)
    made = kl_map(gaussian(0.6), z_0, noise, SCHEDULE, times)
    torch.testing.assert_close(made, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("slices", [24, 96, 192])
def test_healthy_share_is_nominal(slices):
    """Few slices: quantiles alone mark twice as much as is nominal."""

    def draw(count, seed):
        level = torch.linspace(0.5, 2, 256).view(1, 1, 16, 16)
        return level * torch.randn(count, 1, 16, 16, generator=seeded(seed)).exp()

    kl, held_out = draw(slices, 1), draw(400, 2)
    thresholds = HealthyThresholds.fit(kl, [n // 4 for n in range(slices)])
    assert 0.5 < float(thresholds.marked(held_out).float().mean()) / 0.025 < 1.5
    if slices == 24:
        plain = kl.quantile(0.975, 0)
        assert float((held_out > plain).float().mean()) / 0.025 > 1.5


def test_rarity_is_the_share_of_healthy_pixels():
    scores = torch.rand(40, 1, 64, 64, generator=seeded()) ** 2
    scale = HealthyScores.fit(scores, torch.rand(40, generator=seeded(1)) + 1)
    for share in (0.1, 0.01, 0.001):
        level = scale.score_at(share)
        assert float((scores >= level).float().mean()) == pytest.approx(share, rel=0.15)
        assert float(scale.rarity(torch.tensor([level]))) == pytest.approx(
            -math.log10(share), abs=0.06
        )
    ends = scale.rarity(torch.tensor([-1.0, 9.0]))
    assert ends.tolist() == [0.0, 4.0]


def small_model():
    torch.manual_seed(0)
    autoencoder = LatentAutoencoder((8, 8), 1, 16, 4).eval()
    prior = LatentDiffusion(4, (8, 16), 1).eval()
    torch.nn.init.normal_(prior.output.weight, std=0.1)
    return autoencoder, prior


def test_every_row_has_a_map_of_the_image_s_size_and_the_same_seed_gives_the_same_bits():
    model = LatentAnomalyModel(*small_model())
    images = torch.rand(6, 1, 32, 32, generator=seeded())
    model = model.calibrated(images, range(6), 0.025)
    maps, again = (model.maps(images) for _ in range(2))
    assert all(torch.equal(maps[name], again[name]) for name in maps)
    assert all(maps[row].shape == images.shape for row in ROWS)
    assert not torch.equal(maps["KL"], model.maps(images, seed=1)["KL"])
    estimate = model.assess(images)
    assert torch.equal(estimate.score, model.scores.rarity(maps[model.row]))
    assert estimate.likeness.shape == (6,)


def test_guided_map_is_zero_where_the_classifier_knows_nothing():
    autoencoder, prior = small_model()
    classifier = NoisyClassifier(4, 8)
    model = GuidedAnomalyModel(autoencoder, prior, classifier, scale=50.0, steps=4)
    images = torch.rand(2, 1, 32, 32, generator=seeded())
    assert float(model.maps(images)[GRADIENT].max()) > 0
    torch.nn.init.zeros_(classifier.output.weight)
    maps = model.maps(images)
    assert float(maps[GUIDED].max()) == 0
    assert float(maps[GRADIENT].max()) == 0


def test_baselines_find_what_differs_from_the_training_images():
    healthy = 0.5 + 0.05 * torch.randn(100, 1, 32, 32, generator=seeded())
    images, masks = with_sprites(healthy[:8], SIZES["large"], 0)
    assert bool(((images != healthy[:8]) == masks).all())
    found = dict(baselines(healthy, LatentAutoencoder((8, 8), 1), CoarseNoiseDenoiser((8, 8))))
    assert len(found) == 6
    for name in ("atlas z-score", "PCA 64", "5 nearest neighbours"):
        made = found[name](images)
        assert float(made[masks].mean()) > 2 * float(made[~masks].mean()), name
