"""Anomaly maps of a VQ-VAE and a diffusion model of its latents (Pinaya et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from stillscan.models.anomaly.autoencoder import LatentAutoencoder
from stillscan.models.anomaly.calibration import HealthyScores, HealthyThresholds
from stillscan.models.anomaly.divergence import kl_map, kl_timesteps
from stillscan.models.anomaly.model import AnomalyEstimate, Images
from stillscan.models.anomaly.prior import LatentDiffusion
from stillscan.models.sampling.samplers import inpaint_sample
from stillscan.models.sampling.schedule import NoiseSchedule

Row = Literal["KL", "healed residual", "healed x KL", "one step x KL"]
Reference = Literal["image", "reconstruction"]
ROWS: tuple[Row, ...] = ("KL", "healed residual", "healed x KL", "one step x KL")
ONE_STEP_NOISES = 4  # over which the one-step estimate is averaged
START = 500  # timestep at which healing begins
AT_ONCE = 16  # images in a batch


@dataclass(frozen=True)
class LatentAnomalyModel:
    """One autoencoder, one diffusion model, and the healthy images they are compared with.

    Attributes:
        row: which map is the score.
        reference: what the healthy image is compared with: the image itself, or its reconstruction,
            which lacks what the autoencoder cannot draw.
        thresholds, scores: None until they are fitted to healthy images.
        timesteps: number of timesteps of the KL.
        steps: of the sampler that heals.
    """

    autoencoder: LatentAutoencoder
    prior: LatentDiffusion
    row: Row = "one step x KL"
    reference: Reference = "image"
    thresholds: HealthyThresholds | None = None
    scores: HealthyScores | None = None
    timesteps: int = 12
    steps: int = 10
    schedule: NoiseSchedule = field(default_factory=NoiseSchedule.linear)

    @torch.inference_mode()
    def assess(self, images: Images, seed: int = 0) -> AnomalyEstimate:
        """Return the map of `row`; thresholds and scores must have been fitted."""
        assert self.scores is not None
        found = self.maps(images, (self.row,), seed)
        likeness = self.scores.likeness(found["mean KL"])
        score = self.scores.rarity(found[self.row])
        return AnomalyEstimate(score, found["healthy"], likeness)

    @torch.inference_mode()
    def maps(
        self,
        images: Images,
        rows: Sequence[Row] = ROWS,
        seed: int = 0,
        reference: Reference | None = None,
    ) -> Mapping[str, Tensor]:
        """Return a map for each row, and `latent KL`, `mean KL` and the last `healthy` image.

        The same noise is used for every image.
        """
        parts: dict[str, list[Tensor]] = {}
        for batch in torch.split(images, AT_ONCE):
            for name, value in self._maps(batch, rows, seed, reference or self.reference):
                parts.setdefault(name, []).append(value)
        return {name: torch.cat(values) for name, values in parts.items()}

    def _maps(
        self, images: Images, rows: Sequence[Row], seed: int, reference: Reference
    ) -> Iterator[tuple[str, Tensor]]:
        latents = self.autoencoder.encode(images)
        z_0 = self.prior.standardise(latents)
        noises = torch.randn(
            ONE_STEP_NOISES, *z_0.shape[1:], generator=Generator().manual_seed(seed)
        ).to(z_0)
        noise = noises[:1].expand_as(z_0)
        times = kl_timesteps(self.timesteps)
        kl = kl_map(self.prior.predict, z_0, noise, self.schedule, times)
        yield "latent KL", kl
        yield "mean KL", kl.mean((1, 2, 3))
        smooth = F.avg_pool2d(kl, 3, 1, 1, count_include_pad=False)
        weight = _at_size(smooth, images)
        if "KL" in rows:
            yield "KL", weight
        base = self.autoencoder.decode(latents) if reference == "reconstruction" else images
        healthy = base
        if "healed residual" in rows or "healed x KL" in rows:
            healthy = self._healed(z_0, kl, noise)
            residual = (base - healthy).abs()
            yield "healed residual", residual
            yield "healed x KL", residual * weight
        if "one step x KL" in rows:
            healthy = self._one_step(z_0, noises)
            yield "one step x KL", (base - healthy).abs() * weight
        yield "healthy", healthy

    def _healed(self, z_0: Tensor, kl: Tensor, noise: Tensor) -> Tensor:
        """Sample anew where the KL is above its healthy threshold."""
        assert self.thresholds is not None
        mask = self.thresholds.marked(kl).to(z_0)
        healed = inpaint_sample(
            self.prior.predict, z_0, mask, noise, self.schedule, self.steps, START
        )
        return self.autoencoder.decode(self.prior.restore(healed))

    def _one_step(self, z_0: Tensor, noises: Tensor) -> Tensor:
        """Return the image of z0_hat at timestep 500, the mean over a few noises."""
        a = float(self.schedule.alpha_bar[START])
        z0_hats = [self.prior.predict(a**0.5 * z_0 + (1 - a) ** 0.5 * noise, a) for noise in noises]
        return self.autoencoder.decode(self.prior.restore(torch.stack(z0_hats).mean(0)))

    def calibrated(
        self, images: Images, subjects: Sequence[object], nominal: float
    ) -> LatentAnomalyModel:
        """Return the model with thresholds and scores fitted to healthy validation images."""
        kl = self.maps(images, ())["latent KL"]
        fitted = replace(self, thresholds=HealthyThresholds.fit(kl, subjects, nominal))
        found = fitted.maps(images, (self.row,))
        return replace(fitted, scores=HealthyScores.fit(found[self.row], found["mean KL"]))


def _at_size(kl: Float[Tensor, "batch 1 row column"], images: Images) -> Images:
    return F.interpolate(kl, images.shape[-2:], mode="bilinear", align_corners=False)
