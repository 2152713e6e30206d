"""Losses of one-step networks: with the truth, with a teacher, or with noise alone.

Every objective takes a network with the student's interface and a batch; the network maps (image,
sigma, correlation) to (noise in units of sigma, log variance of the error in sigma^2). The methods
of No-New-Denoiser that serve as controls therefore differ from the student in the loss only.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from stillscan.models.networks.blind_spot import BlindSpotNetwork
from stillscan.models.networks.conditional_diffusion import (
    Condition,
    DiffusionNetwork,
    Profile,
    centre_of,
    prediction_error,
)
from stillscan.models.networks.precision import mixed_precision
from stillscan.models.noise.profile import CORRELATION_LAGS, MAX_LAG
from stillscan.models.sampling.schedule import NoiseSchedule
from stillscan.models.training.loop import Losses, Objective
from stillscan.models.training.noisy_examples import Batch
from stillscan.models.training.noisy_images import NoisyBatch

Planes = Float[Tensor, "batch 1 height width"]
Values = Float[Tensor, " batch"]

MSE_FLOOR = 0.004  # in sigma^2: errors below it hardly count
RECORRUPTION = (0.4, 1.5)  # range of the factor a
MORE_NOISE = (0.5, 2.0)  # range of a in distillation
SURE_STEP = 0.1  # in sigma: length of the difference quotient
MASKED = 0.03  # share of the pixels that Noise2Void hides
NEIGHBOUR_WEIGHT = 1.0  # gamma of Neighbor2Neighbor


def supervised(network: nn.Module, batch: Batch) -> Losses:
    """Mean over the examples of log(error / noise), plus the likelihood of the log variance.

    Every example has the same weight in dB, whatever its noise level. Reported in dB.
    """
    device = _device(network)
    noisy, sigma = batch.noisy.to(device), batch.sigma.to(device)
    predicted, log_variance = _run(network, noisy, sigma, batch.correlation.to(device))
    error = predicted * sigma - batch.noise.to(device)
    level = sigma.square().mean((1, 2, 3))
    mean_loss = (error.square().mean((1, 2, 3)) / level + MSE_FLOOR).log().mean()
    known = (error.detach() / sigma).square()
    likelihood = _likelihood(known, log_variance, torch.zeros_like(known))
    return Losses(mean_loss + likelihood, 10 / math.log(10) * mean_loss)


def paired(lesion_weight: float, counted_from: float = 1.5) -> Objective[Batch]:
    """Judge a noisy patch and the same with lesions in it: no noise is left, no lesion is taken.

    With r what the network takes, n the noise, d the lesions, and h = r - g * r what remains of r
    after the pass-through with the Gaussian g: log(|h(y) - (n - g * n)|^2 / |n|^2) over both
    patches, plus `lesion_weight` w(v) |h(y + d) - h(y)|^2 / |d - g * d|^2, the energy of the
    lesions that is taken, which every observer's template loses. w rises from 0 at visibility
    `counted_from` to 1 at 5. The log variance is trained on the error of h. Reported: the first
    term in dB.
    """

    def objective(network: nn.Module, batch: Batch) -> Losses:
        assert batch.lesions is not None
        assert batch.visibility is not None
        assert batch.passed is not None
        matrix = smoothing_matrix(batch.passed, batch.noisy.shape[2])

        def judged(planes: Planes) -> Planes:
            return planes - matrix @ planes @ matrix.mT

        both = torch.cat([batch.noisy, batch.noisy + batch.lesions])
        sigma, correlation = batch.sigma.repeat(2, 1, 1, 1), batch.correlation.repeat(2, 1)
        predicted, log_variance = _run(network, both, sigma, correlation)
        without, with_lesions = (judged(r) for r in (predicted * sigma).chunk(2))
        wanted = judged(batch.noise)
        error = torch.cat([without - wanted, with_lesions - wanted])
        level = batch.noise.square().mean((1, 2, 3)).clamp(min=1e-12).repeat(2)
        left = (error.square().mean((1, 2, 3)) / level + MSE_FLOOR).log().mean()
        taken = (with_lesions - without).square().sum((1, 2, 3))
        energy = judged(batch.lesions).square().sum((1, 2, 3))
        weight = ((batch.visibility - counted_from) / (5 - counted_from)).clamp(0, 1)
        weight = weight * (energy > 0)
        lost = (weight * taken / energy.clamp(min=1e-12)).mean()
        known = (error.detach() / sigma).square()
        likelihood = _likelihood(known, log_variance, torch.zeros_like(known))
        total = left + lesion_weight * lost + likelihood
        return Losses(total, 10 / math.log(10) * left)

    return objective


def smoothing_matrix(scale: Values, size: int) -> Float[Tensor, "batch 1 size size"]:
    """Return the Gaussian along one axis as a matrix, mirrored at both ends; none for scale 0."""
    at = torch.arange(size, dtype=torch.float32)
    away, before = at[:, None] - at, at[:, None] + at + 1
    width = 2 * scale.clamp(min=1e-3)[:, None, None, None].square()
    kernel = sum(torch.exp(-(d**2) / width) for d in (away, before, 2 * size - before))
    assert isinstance(kernel, Tensor)
    return kernel / kernel.sum(3, keepdim=True) * (scale > 0)[:, None, None, None]


def distillation(network: nn.Module, batch: NoisyBatch) -> Losses:
    """Train on a teacher's estimate (`batch.label`) from y, and from y with more noise of its kind.

    The first half of the batch is y itself; the second is y + a z, given with its higher level.
    So one network serves all noise levels and cannot learn y's own noise by heart. The uncertainty
    is trained on the second half: y - z / a is independent of the input given the clean image.
    Reported in dB.
    """
    batch = batch.to(_device(network))
    half = len(batch.noisy) // 2
    a = _factors(len(batch.noisy), batch.generator, MORE_NOISE).to(batch.noisy.device)
    a = torch.where(torch.arange(len(a), device=a.device) < half, torch.zeros_like(a), a)
    a = a[:, None, None, None]
    sigma = batch.sigma * (1 + a**2).sqrt()
    noisy = batch.noisy + a * batch.fresh
    predicted, log_variance = _run(network, noisy, sigma, batch.correlation)
    estimate = noisy - sigma * predicted
    error = (estimate - batch.label).square().mean((1, 2, 3)) / sigma.square().mean((1, 2, 3))
    mean_loss = (error + MSE_FLOOR).log().mean()
    more = a[half:]
    target = batch.noisy[half:] - batch.fresh[half:] / more
    known = ((estimate[half:].detach() - target) / sigma[half:]).square()
    likelihood = _likelihood(known, log_variance[half:], (1 / more**2).expand_as(known))
    return Losses(mean_loss + likelihood, 10 / math.log(10) * mean_loss)


def recorrupted(network: nn.Module, batch: NoisyBatch) -> Losses:
    """Recorrupted-to-recorrupted (Pang et al. 2021): from y + a z predict y - z / a.

    Where y's noise is Gaussian with z's law, the noise of input and target are independent, so the
    minimiser is E[x | y + a z]. Reported: error against the target in its noise's units.
    """
    batch = batch.to(_device(network))
    a = _factors(len(batch.noisy), batch.generator, RECORRUPTION).to(batch.noisy.device)
    a = a[:, None, None, None]
    noisy, target = batch.noisy + a * batch.fresh, batch.noisy - batch.fresh / a
    sigma = batch.sigma * (1 + a**2).sqrt()
    predicted, log_variance = _run(network, noisy, sigma, batch.correlation)
    square = ((noisy - sigma * predicted - target) / sigma).square()  # 1 / a^2 of it is noise
    loss = (a**2 * square).mean()
    likelihood = _likelihood(square.detach(), log_variance, (1 / a**2).expand_as(square))
    return Losses(loss + likelihood, loss)


def sure(network: nn.Module, batch: NoisyBatch) -> Losses:
    """Stein's unbiased risk estimate by Monte Carlo (Ramani et al. 2008), any noise correlation.

    With x_hat = y - sigma f(y) and noise sigma n, Cov(n) = C:
    E|x_hat - x|^2 / sigma^2 = E[f^2] - 2 E[n f] + 1, and E[n f] = sigma tr(C df/dy), estimated by
    b (f(y + t sigma b) - f(y)) / t with b drawn from n's law. Reported: that estimate per pixel.
    """
    batch = batch.to(_device(network))
    probe = batch.fresh / batch.sigma
    moved = batch.noisy + SURE_STEP * batch.fresh
    both = torch.cat([batch.noisy, moved])
    sigma, correlation = torch.cat([batch.sigma] * 2), torch.cat([batch.correlation] * 2)
    predicted, _ = _run(network, both, sigma, correlation)
    f, f_moved = predicted.chunk(2)
    risk = f.square().mean() - 2 * (probe * (f_moved - f)).mean() / SURE_STEP + 1
    return Losses(risk, risk)


def neighbor2neighbor(network: nn.Module, batch: NoisyBatch) -> Losses:
    """Neighbor2Neighbor (Huang et al. 2021): one subsampled image predicts its neighbour.

    |f(g1 y) - g2 y|^2 + gamma |f(g1 y) - g2 y - (g1 f(y) - g2 f(y))|^2, where g1 and g2 take two
    neighbouring pixels of every cell of 2 x 2. For white noise. Reported: the first term / sigma^2.
    """
    batch = batch.to(_device(network))
    first, second = neighbours(batch.noisy, batch.generator)
    y1, y2, sigma = (
        cells(plane).gather(1, index)
        for plane, index in ((batch.noisy, first), (batch.noisy, second), (batch.sigma, first))
    )
    predicted, _ = _run(network, y1, sigma, subsampled_correlation(batch.acf))
    residual = (y1 - sigma * predicted - y2) / sigma
    with torch.no_grad():
        predicted, _ = _run(network, batch.noisy, batch.sigma, batch.correlation)
        whole = cells(batch.noisy - batch.sigma * predicted)
        difference = (whole.gather(1, first) - whole.gather(1, second)) / sigma
    loss = residual.square().mean()
    total = loss + NEIGHBOUR_WEIGHT * (residual - difference).square().mean()
    return Losses(total, loss)


def noise2void(network: nn.Module, batch: NoisyBatch) -> Losses:
    """Noise2Void (Krull et al. 2019): replaced pixels are predicted from their surroundings.

    For white noise. Reported: squared error at the hidden pixels in sigma^2.
    """
    batch = batch.to(_device(network))
    y = batch.noisy
    hidden = (torch.rand(y.shape, generator=batch.generator) < MASKED).to(y.device)
    steps = torch.randint(-2, 3, (2,), generator=batch.generator).tolist()
    if steps == [0, 0]:
        steps = [1, 0]
    masked = torch.where(hidden, torch.roll(y, steps, (2, 3)), y)
    predicted, _ = _run(network, masked, batch.sigma, batch.correlation)
    square = ((masked - batch.sigma * predicted - y) / batch.sigma).square()
    loss = square[hidden].mean()
    return Losses(loss, loss)


def cells(plane: Planes) -> Float[Tensor, "batch 4 half_height half_width"]:
    """Return the four pixels of every 2 x 2 cell as channels, clockwise from above left."""
    return F.pixel_unshuffle(plane, 2)[:, [0, 1, 3, 2]]


def neighbours(
    plane: Planes, generator: Generator
) -> tuple[
    Int[Tensor, "batch 1 half_height half_width"], Int[Tensor, "batch 1 half_height half_width"]
]:
    """Draw two adjacent members of `cells` for every 2 x 2 cell."""
    shape = (plane.shape[0], 1, plane.shape[2] // 2, plane.shape[3] // 2)
    first = torch.randint(0, 4, shape, generator=generator)
    turn = 2 * torch.randint(0, 2, shape, generator=generator) - 1
    return first.to(plane.device), ((first + turn) % 4).to(plane.device)


def subsampled_correlation(acf: Float[Tensor, "batch offset offset"]) -> Float[Tensor, "batch lag"]:
    """Return the coefficients at CORRELATION_LAGS of every second pixel; 0 beyond MAX_LAG."""
    columns = []
    for dy, dx in CORRELATION_LAGS:
        inside = max(2 * dy, 2 * dx) <= MAX_LAG
        known = acf[:, MAX_LAG + 2 * dy, MAX_LAG + 2 * dx] if inside else torch.zeros(len(acf))
        columns.append(known.to(acf.device))
    return torch.stack(columns, 1)


def _run(
    network: nn.Module, image: Planes, sigma: Planes, correlation: Float[Tensor, "batch lag"]
) -> tuple[Planes, Planes]:
    with mixed_precision(image.device):
        predicted, log_variance = network(image, sigma, correlation)
    return predicted, log_variance


def _likelihood(square: Planes, log_variance: Planes, noise: Planes) -> Tensor:
    """Mean negative log likelihood of squared errors under variance exp(log_variance) + noise."""
    variance = log_variance.exp() + noise
    return 0.5 * (square / variance + variance.log()).mean()


def _factors(size: int, generator: Generator, limits: tuple[float, float]) -> Values:
    """Draw log-uniform factors between the limits."""
    low, high = (math.log(limit) for limit in limits)
    return (low + (high - low) * torch.rand(size, generator=generator)).exp()


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def blind_spot_loss(network: nn.Module, batch: NoisyBatch) -> Losses:
    """Compute the squared error of the mean against the noisy image itself.

    L2 estimates the mean, which is wanted here; L1 would estimate the median, biased for
    Poisson, Gamma and Rician noise. Each example is weighed by one over its error (the gradient of
    the log), so that weak and strong noise count alike. Reported: 10 log10(error / noise) in dB;
    0 would be a perfect prediction.
    """
    batch, mean, _ = _predicted(network, batch)
    square = (mean - batch.noisy).square().mean((1, 2, 3))
    error = (square / batch.sigma.square().mean((1, 2, 3))).log().mean()
    return Losses(error, 10 / math.log(10) * error)


def blind_spot_variance_loss(network: nn.Module, batch: NoisyBatch) -> Losses:
    """Negative log likelihood of y ~ N(mu, s^2 + sigma^2) as a function of s^2, in sigma units."""
    batch, mean, log_variance = _predicted(network, batch)
    level = batch.level[:, None, None, None]
    noise = (batch.sigma / level).square()
    variance = log_variance.exp() + noise
    square = ((mean.detach() - batch.noisy) / level).square()
    likelihood = 0.5 * (square / variance + variance.log()).mean()
    return Losses(likelihood, likelihood)


def _predicted(network: nn.Module, batch: NoisyBatch) -> tuple[NoisyBatch, Planes, Planes]:
    device = next(network.parameters()).device
    batch = batch.to(device)
    with mixed_precision(device):
        mean, log_variance = network(batch.noisy, batch.level)
    return batch, mean, log_variance


class DiffusionObjective:
    """The diffusion loss at a random timestep, with z_0 and condition as the profile defines.

    Args:
        blind_spot: trained network of stage 1; it is not changed.
        schedule: noise schedule of the model.
        regularisation: weight of the squared error of z0_hat beside the loss (an interpretation of
            No-New-Denoiser's "regularised").
    """

    def __init__(
        self, blind_spot: BlindSpotNetwork, schedule: NoiseSchedule, regularisation: float = 0.0
    ) -> None:
        self.blind_spot = blind_spot.eval()
        self.schedule = schedule
        self.regularisation = regularisation

    def __call__(self, network: nn.Module, batch: NoisyBatch) -> Losses:
        """Compute the loss of a batch; the reported loss excludes the regularisation."""
        assert isinstance(network, DiffusionNetwork)
        device = next(network.parameters()).device
        generator = batch.generator
        batch = batch.to(device)
        condition, target = condition_and_target(self.blind_spot, batch, network.profile)
        z0 = 2 * target - 1
        t = torch.randint(0, len(self.schedule), (len(z0),), generator=generator)
        alpha_bar = self.schedule.alpha_bar[t].float().to(device)
        a = alpha_bar[:, None, None, None]
        eps = torch.randn(z0.shape, generator=generator).to(device)
        z_t = a.sqrt() * z0 + (1 - a).sqrt() * eps
        with mixed_precision(device):
            z0_hat = network(z_t, alpha_bar, condition)
        error = prediction_error(z0_hat - z0, a, network.profile, condition.target_sigma)
        loss = error.abs().mean() if network.profile.loss == "L1" else error.square().mean()
        total = loss + self.regularisation * (z0_hat - z0).square().mean()
        return Losses(total, loss)


def condition_and_target(
    blind_spot: BlindSpotNetwork, batch: NoisyBatch, profile: Profile
) -> tuple[Condition, Planes]:
    """Build the condition and the target; their noise is independent unless recorruption is 0."""
    factor = profile.recorruption
    noisy = batch.noisy + factor * batch.fresh
    target = batch.noisy - batch.fresh / factor if factor else batch.noisy
    more, target_more = math.sqrt(1 + factor**2), math.sqrt(1 + 1 / factor**2) if factor else 1.0
    sigma = batch.sigma * more
    with torch.no_grad():
        centre = centre_of(blind_spot, noisy, batch.level * more, sigma, profile)
    condition = Condition(
        centre, noisy, sigma, batch.correlation, target_sigma=batch.sigma * target_more
    )
    return condition, target
