"""The stages that train the networks of an anomaly bundle, resumable as those of a denoiser."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator as Chance
from torch import Tensor, nn

from stillscan.app.datasets.anomaly_images import AnomalyImages
from stillscan.app.training.run import Progress, trained_stage
from stillscan.models.anomaly.autoencoder import LatentAutoencoder, autoencoder_loss
from stillscan.models.anomaly.baselines import (
    CoarseNoiseDenoiser,
    denoiser_loss,
    with_coarse_noise,
)
from stillscan.models.anomaly.bundle import as_stored
from stillscan.models.anomaly.prior import (
    LatentDiffusion,
    NoisyClassifier,
    NoisyLatents,
    classifier_loss,
    diffusion_loss,
)
from stillscan.models.sampling.schedule import NoiseSchedule
from stillscan.models.training.loop import Objective, Training, train
from stillscan.models.training.stages import StagePlan

SMALL_IMAGE = 128  # up to this side latents have a quarter of it, beyond it an eighth
CLEAN = 0.25  # share of a classifier's batch without noise
STAGES = ("autoencoder", "prior", "denoiser", "two_class_prior", "classifier")
COST = {
    "autoencoder": 2.0,
    "prior": 0.7,
    "denoiser": 0.5,
    "two_class_prior": 0.7,
    "classifier": 0.1,
}


@dataclass(frozen=True)
class AnomalyProfile:
    """Length of each stage and size of the networks.

    Attributes:
        two_class, classifier: only with labels of both classes.
        widths: channels of the autoencoder at 1/2, 1/4 and 1/8 of the image.
        prior_widths: channels of the diffusion model.
        denoiser_widths: channels of the baseline.
    """

    autoencoder: StagePlan
    prior: StagePlan
    denoiser: StagePlan
    two_class: StagePlan
    classifier: StagePlan
    widths: tuple[int, int, int] = (32, 64, 96)
    prior_widths: tuple[int, ...] = (48, 96, 128)
    denoiser_widths: tuple[int, ...] = (16, 32, 64)
    decay: float = 0.995
    checkpoint_every: int = 100

    def plans(self, *, two_class: bool) -> dict[str, StagePlan]:
        """Return the plans by stage."""
        plans = (self.autoencoder, self.prior, self.denoiser, self.two_class, self.classifier)
        return dict(zip(STAGES if two_class else STAGES[:3], plans, strict=False))

    def work(self, *, two_class: bool) -> dict[str, float]:
        """Estimate the work of each stage, in an arbitrary unit."""
        plans = self.plans(two_class=two_class)
        return {stage: COST[stage] * plan.steps * plan.batch for stage, plan in plans.items()}


QUICK = AnomalyProfile(
    StagePlan(3200, batch=16),
    StagePlan(2400, batch=32),
    StagePlan(1200, batch=16),
    StagePlan(800, batch=32),
    StagePlan(1500, batch=32),
)
STANDARD = AnomalyProfile(
    StagePlan(60_000, batch=64),
    StagePlan(100_000, batch=64),
    StagePlan(30_000, batch=64),
    StagePlan(20_000, batch=64),
    StagePlan(20_000, batch=64),
    widths=(64, 128, 192),
    prior_widths=(128, 256, 384),
    denoiser_widths=(32, 64, 128),
    decay=0.9999,
    checkpoint_every=1000,
)
PROFILES: Mapping[str, AnomalyProfile] = {"quick": QUICK, "standard": STANDARD}


@dataclass(frozen=True)
class AnomalyRun:
    """A training run.

    Attributes:
        folder: of the checkpoints.
        images: for training; the diseased ones serve autoencoder, second prior and classifier.
        two_class: whether there are labels of both classes.
        seed: of weights and batches.
    """

    folder: Path
    profile: AnomalyProfile
    images: AnomalyImages
    two_class: bool
    seed: int
    device: torch.device

    def train(self) -> Generator[Progress, None, dict[str, nn.Module]]:
        """Run all stages, or the remaining ones; return the networks by name.

        Raises:
            DivergedError: if a loss is not finite.
            OutputError: if a checkpoint cannot be written.
        """
        profile, images = self.profile, self.images.images
        sick = torch.from_numpy(self.images.diseased)
        schedule = NoiseSchedule.linear()
        levels = 2 if images.shape[-1] <= SMALL_IMAGE else 3
        autoencoder = yield from self._stage(
            "autoencoder",
            lambda: LatentAutoencoder(profile.widths[:levels]),
            autoencoder_loss,
            lambda chance, size: _pick(images, chance, size),
        )
        assert isinstance(autoencoder, LatentAutoencoder)
        latents = self._latents(autoencoder)
        healthy = latents[~sick]
        size = latents.shape[1]
        prior = yield from self._stage(
            "prior",
            lambda: _standardised(LatentDiffusion(size, profile.prior_widths), healthy),
            diffusion_loss,
            self._noisy(healthy, schedule),
        )
        networks = {"autoencoder": autoencoder, "prior": prior}
        still = images[~sick]

        def clean_and_noisy(chance: Chance, size: int) -> tuple[Tensor, Tensor]:
            clean = _pick(still, chance, size)
            return clean, with_coarse_noise(clean, chance)

        networks["denoiser"] = yield from self._stage(
            "denoiser",
            lambda: CoarseNoiseDenoiser(profile.denoiser_widths),
            denoiser_loss,
            clean_and_noisy,
        )
        if not self.two_class:
            return networks
        both = yield from self._stage(
            "two_class_prior",
            lambda: _going_on_from(LatentDiffusion(size, profile.prior_widths), prior),
            diffusion_loss,
            self._noisy(latents, schedule),
        )
        assert isinstance(both, LatentDiffusion)
        classes = [both.standardise(latents[which]) for which in (~sick, sick)]

        def labelled(chance: Chance, size: int) -> tuple[NoisyLatents, Tensor]:
            label = torch.randint(2, (size,), generator=chance)
            drawn = [_pick(each, chance, size) for each in classes]
            z_0 = torch.where(label[:, None, None, None] == 1, drawn[1], drawn[0])
            return NoisyLatents(z_0, chance, schedule, CLEAN), label

        networks["two_class_prior"] = both
        networks["classifier"] = yield from self._stage(
            "classifier", lambda: NoisyClassifier(size), classifier_loss, labelled
        )
        return networks

    def _stage(
        self,
        stage: str,
        make: Callable[[], nn.Module],
        objective: Objective,  # type: ignore[type-arg]
        draw: Callable[[Chance, int], object],
    ) -> Generator[Progress, None, nn.Module]:
        """Train one network; batch k follows from the seed and k alone."""
        plan, number = self.profile.plans(two_class=True)[stage], STAGES.index(stage)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed * len(STAGES) + number)
            network = make().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

        def batches(first: int) -> Iterator[object]:
            while True:
                seed = (self.seed * len(STAGES) + number) * 2**32 + first
                yield _on(draw(Chance().manual_seed(seed), plan.batch), self.device)
                first += 1

        network = yield from trained_stage(
            stage,
            Training.begin(network, plan.learning_rate, self.profile.decay),
            self.folder / f"{stage}.pt",
            lambda training: train(
                training, batches(training.number), objective, plan.steps, plan.learning_rate
            ),
            plan.steps,
            self.profile.checkpoint_every,
        )
        return as_stored(network)

    @torch.inference_mode()
    def _latents(self, autoencoder: LatentAutoencoder) -> Tensor:
        batches = torch.split(self.images.images, 64)
        return torch.cat(
            [autoencoder.encode(each.to(self.device)).cpu() for each in batches]
        ).clone()

    @staticmethod
    def _noisy(latents: Tensor, schedule: NoiseSchedule) -> Callable[[Chance, int], NoisyLatents]:
        """Draw batches of standardised noisy latents."""
        mean, deviation = _statistics(latents)
        z_0 = (latents - mean) / deviation
        return lambda chance, size: NoisyLatents(_pick(z_0, chance, size), chance, schedule)


def _pick(images: Tensor, chance: Chance, size: int) -> Tensor:
    return images[torch.randint(len(images), (size,), generator=chance)]


def _statistics(latents: Tensor) -> tuple[Tensor, Tensor]:
    mean = latents.mean((0, 2, 3))[:, None, None]
    return mean, latents.std((0, 2, 3))[:, None, None]


def _standardised(network: LatentDiffusion, latents: Tensor) -> LatentDiffusion:
    for parameter, value in zip(
        (network.mean, network.deviation), _statistics(latents), strict=True
    ):
        parameter.copy_(value)
    return network


def _going_on_from(network: LatentDiffusion, start: nn.Module) -> LatentDiffusion:
    network.load_state_dict(start.state_dict())
    return network


def _on(batch: object, device: torch.device) -> object:
    """Move a batch of tensors to the device."""
    if device.type == "cpu":
        return batch
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, NoisyLatents):
        for name, value in vars(batch).items():
            setattr(batch, name, value.to(device))
        return batch
    assert isinstance(batch, tuple)
    return tuple(_on(each, device) for each in batch)
