"""Anomaly maps by encoding and classifier guidance (Wolleb et al. 2022), in latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stillscan.models.anomaly.autoencoder import LatentAutoencoder
from stillscan.models.anomaly.latent import AT_ONCE
from stillscan.models.anomaly.model import Images
from stillscan.models.anomaly.prior import LatentDiffusion, NoisyClassifier
from stillscan.models.sampling.samplers import decode, encode, guided
from stillscan.models.sampling.schedule import NoiseSchedule

LEVEL = 500  # timestep up to which images are encoded
STEPS = 25  # of Heun's method, each way
SCALES = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0)
GUIDED, PUBLISHED, GRADIENT = "unguided - guided", "image - guided", "classifier gradient"


@dataclass(frozen=True)
class GuidedAnomalyModel:
    """A diffusion model of both classes and a classifier of its noisy latents.

    The map is the difference of two decodings of the *same* encoding, with and without guidance
    towards `healthy`: the error of encoding and decoding cancels. Unlike the published method it
    works in latents, with Heun's method in place of 500 plain steps.
    """

    autoencoder: LatentAutoencoder
    prior: LatentDiffusion
    classifier: NoisyClassifier
    scale: float = 3.0
    steps: int = STEPS
    schedule: NoiseSchedule = field(default_factory=NoiseSchedule.linear)

    def maps(self, images: Images) -> Mapping[str, Tensor]:
        """Return the map, the published one, the gradient of the classifier alone, `healthy`."""
        found = [self._maps(batch) for batch in torch.split(images, AT_ONCE)]
        return {name: torch.cat([each[name] for each in found]) for name in found[0]}

    @torch.no_grad()
    def _maps(self, images: Images) -> dict[str, Tensor]:
        z_0 = self.prior.standardise(self.autoencoder.encode(images))
        where = self.schedule, self.steps, LEVEL
        level = encode(self.prior.predict, z_0, *where)
        towards = guided(self.prior.predict, self.classifier.log_healthy, self.scale)
        plain = self._image(decode(self.prior.predict, level, *where))
        healthy = self._image(decode(towards, level, *where))
        return {
            GUIDED: (plain - healthy).abs(),
            PUBLISHED: (images - healthy).abs(),
            GRADIENT: self.gradient(images),
            "healthy": healthy,
        }

    @torch.no_grad()
    def logit(self, images: Images) -> Float[Tensor, " batch"]:
        """Return the classifier's logit of `diseased` without noise."""
        z_0 = self.prior.standardise(self.autoencoder.encode(images))
        return self.classifier(z_0, torch.full((len(z_0),), self._clean).to(z_0))

    @property
    def _clean(self) -> float:
        return float(self.schedule.alpha_bar[0])

    def gradient(self, images: Images) -> Images:
        """Return the length of the classifier's gradient at each latent position: the control."""
        with torch.enable_grad():
            z_0 = self.prior.standardise(self.autoencoder.encode(images)).detach()
            z_0.requires_grad_()
            (slope,) = torch.autograd.grad(self.classifier.log_healthy(z_0, self._clean).sum(), z_0)
        length = slope.square().sum(1, keepdim=True).sqrt()
        return F.interpolate(length, images.shape[-2:], mode="bilinear", align_corners=False)

    def _image(self, z: Tensor) -> Tensor:
        return self.autoencoder.decode(self.prior.restore(z))
