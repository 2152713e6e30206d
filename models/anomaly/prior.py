"""A diffusion model of latents, and classifiers of noisy latents."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from stillscan.models.networks.conditional_diffusion import TIME_PLANES
from stillscan.models.networks.precision import mixed_precision
from stillscan.models.networks.unet import PlainUNet
from stillscan.models.sampling.schedule import NoiseSchedule
from stillscan.models.training.loop import Losses

Latents = Float[Tensor, "batch channel row column"]
Values = Float[Tensor, " batch"]


class LatentDiffusion(nn.Module):
    """Predicts v = sqrt(a) eps - sqrt(1 - a) z_0 of standardised latents (Salimans and Ho 2022).

    Args:
        size: channels of the latents.
        widths: channels of the U-Net; sides must be divisible by `2 ** (len(widths) - 1)`.
        middle_blocks: residual blocks at the coarsest size.
    """

    def __init__(
        self, size: int = 8, widths: tuple[int, ...] = (48, 96, 128), middle_blocks: int = 2
    ) -> None:
        super().__init__()
        self.arguments = {"size": size, "widths": list(widths), "middle_blocks": middle_blocks}
        self.mean = nn.Parameter(torch.zeros(size, 1, 1), requires_grad=False)
        self.deviation = nn.Parameter(torch.ones(size, 1, 1), requires_grad=False)
        self.body = PlainUNet(size + TIME_PLANES, widths, middle_blocks)
        self.output = nn.Conv2d(widths[0], size, 3, padding=1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def standardise(self, latents: Latents) -> Latents:
        """Return latents with mean 0 and deviation 1 in each channel: z_0."""
        return (latents - self.mean) / self.deviation

    def restore(self, z: Latents) -> Latents:
        """Return the latents of z_0."""
        return z * self.deviation + self.mean

    def forward(self, z_t: Latents, alpha_bar: Values) -> Latents:
        """Return v."""
        return self.output(self.body(with_time(z_t, alpha_bar)))

    def predict(self, z_t: Tensor, alpha_bar: float) -> Tensor:
        """Return z0_hat: a `Predict` of the samplers."""
        v = self(z_t, torch.full((len(z_t),), alpha_bar).to(z_t))
        return alpha_bar**0.5 * z_t - (1 - alpha_bar) ** 0.5 * v


class NoisyClassifier(nn.Module):
    """The logit of `diseased`, given noisy standardised latents z_t and alpha_bar.

    Args:
        size: channels of the latents.
        width: channels of the network, doubled at each of two halvings.
    """

    def __init__(self, size: int = 8, width: int = 32) -> None:
        super().__init__()
        self.arguments = {"size": size, "width": width}
        self.features = nn.Sequential(
            nn.Conv2d(size + TIME_PLANES, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
            nn.SiLU(),
        )
        self.output = nn.Linear(4 * width, 1)

    def forward(self, z_t: Latents, alpha_bar: Values) -> Values:
        """Return the logit of `diseased` for each image."""
        return self.output(self.features(with_time(z_t, alpha_bar)).mean((2, 3)))[:, 0]

    def log_healthy(self, z_t: Tensor, alpha_bar: float) -> Tensor:
        """Return log p(healthy | z_t): a `LogProbability` of the samplers."""
        return F.logsigmoid(-self(z_t, torch.full((len(z_t),), alpha_bar).to(z_t)))


class NoisyLatents:
    """A batch of z_t with their noise, drawn from a generator.

    Args:
        z_0: standardised latents.
        generator: on the CPU.
        schedule: noise schedule.
        clean: share of the images that get hardly any noise (a classifier must know those too).
    """

    def __init__(
        self, z_0: Tensor, generator: Generator, schedule: NoiseSchedule, clean: float = 0.0
    ) -> None:
        t = torch.randint(len(schedule), (len(z_0),), generator=generator)
        a = schedule.alpha_bar[t].float()
        a[: round(clean * len(z_0))] = 1 - 1e-4
        self.alpha_bar = a.to(z_0.device)
        self.noise = torch.randn(z_0.shape, generator=generator).to(z_0)
        self.root = self.alpha_bar.sqrt()[:, None, None, None]
        self.root_noise = (1 - self.alpha_bar).sqrt()[:, None, None, None]
        self.z_t = self.root * z_0 + self.root_noise * self.noise
        self.v = self.root * self.noise - self.root_noise * z_0


def with_time(z_t: Latents, alpha_bar: Values) -> Float[Tensor, "batch plane row column"]:
    """Append three planes that tell the share of signal."""
    a = alpha_bar[:, None, None, None]
    time = torch.cat([((1 - a) / a).log() / 8, a.sqrt(), (1 - a).sqrt()], 1)
    return torch.cat([z_t, time.expand(-1, -1, *z_t.shape[-2:])], 1)


def diffusion_loss(network: nn.Module, batch: NoisyLatents) -> Losses:
    """Return the mean squared error of v."""
    with mixed_precision(batch.z_t.device):
        v = network(batch.z_t, batch.alpha_bar)
    loss = (v.float() - batch.v).square().mean()
    return Losses(loss, loss)


def classifier_loss(
    network: nn.Module, batch: tuple[NoisyLatents, Int[Tensor, " batch"]]
) -> Losses:
    """Return the cross-entropy of the labels (1: diseased)."""
    noisy, label = batch
    logit = network(noisy.z_t, noisy.alpha_bar)
    loss = F.binary_cross_entropy_with_logits(logit, label.to(logit))
    return Losses(loss, loss)
