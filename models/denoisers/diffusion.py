"""The conditional diffusion model as a `Denoiser`: SRDS and the methods it is compared with.

The application uses means only (`srds`, `one_step`); single samples serve the evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from stillscan.models.denoisers.denoiser import Estimate
from stillscan.models.denoisers.student import pad_to_multiple
from stillscan.models.networks.blind_spot import BlindSpotNetwork
from stillscan.models.networks.conditional_diffusion import Condition, DiffusionNetwork, centre_of
from stillscan.models.networks.precision import mixed_precision
from stillscan.models.noise.profile import NoiseProfile
from stillscan.models.noise.synthesis import correlated_noise, spectrum_of
from stillscan.models.sampling.samplers import Sample, ddim_sample, mean_and_spread, srds_sample
from stillscan.models.sampling.schedule import NoiseSchedule

Planes = Float[Tensor, "batch 1 height width"]

Mode = Literal["srds", "one_step", "sample", "stochastic_sample", "independent_samples"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class Sampling:
    """How a conditional diffusion model is turned into an estimate.

    Attributes:
        mode: `srds`: mean over pairs begun at +eps and -eps; `one_step`: the prediction at t = T;
            `sample`: one DDIM sample; `stochastic_sample`: one DDPM sample;
            `independent_samples`: mean of 2 K samples begun at independent noise.
        steps: S, the number of timesteps.
        pairs: K, the number of pairs of samples.
        recorruptions: 0: the condition is made from y itself; M: the estimate is the mean over M
            conditions made from y + a z, as in training.
    """

    mode: Mode = "srds"
    steps: int = 20
    pairs: int = 1
    recorruptions: int = 0


class DiffusionDenoiser:
    """The blind-spot network followed by the conditional model, for images on about [0, 1].

    Args:
        blind_spot: trained network of stage 1.
        network: trained network of stage 2, trained with that blind-spot network.
        schedule: noise schedule of the model.
        sampling: how samples become an estimate.
        seeds: one for each image of a batch; for a longer batch the last one is counted on. The
            same seeds give the same bits on the same device.
        device: torch device.
    """

    def __init__(
        self,
        blind_spot: BlindSpotNetwork,
        network: DiffusionNetwork,
        schedule: NoiseSchedule,
        sampling: Sampling | None = None,
        seeds: Sequence[int] = (0,),
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.blind_spot = blind_spot.to(self.device).eval()
        self.network = network.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.schedule = schedule
        self.sampling = sampling or Sampling()
        self.seeds = tuple(seeds)

    def seeded(self, seeds: Sequence[int]) -> DiffusionDenoiser:
        """Return a copy of the model with other seeds."""
        return DiffusionDenoiser(
            self.blind_spot, self.network, self.schedule, self.sampling, seeds, self.device
        )

    def sampled(self, sampling: Sampling) -> DiffusionDenoiser:
        """Return a copy of the model with another way of sampling."""
        return DiffusionDenoiser(
            self.blind_spot, self.network, self.schedule, sampling, self.seeds, self.device
        )

    @torch.inference_mode()
    def denoise(self, image: Planes, noise: NoiseProfile) -> Estimate:
        """Estimate the clean image; `spread` excludes the noise that the samples contain."""
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image, self.network.multiple).to(self.device)
        generators = [torch.Generator().manual_seed(seed) for seed in self._seeds(len(image))]
        recorruptions = self.sampling.recorruptions
        if recorruptions and self.network.profile.recorruption:
            samples = [
                self._estimate(self._recorrupted(padded, noise, generators), generators)
                for _ in range(recorruptions)
            ]
            mean = torch.stack([each.mean for each in samples]).mean(0)
            spread = torch.stack([each.spread for each in samples]).square().mean(0).sqrt()
        else:
            sample = self._estimate(self._condition(padded, noise), generators)
            mean, spread = sample.mean, sample.spread
        mean, spread = (mean + 1) / 2, spread / 2
        many = self.sampling.mode in ("srds", "independent_samples")
        return Estimate(
            mean[..., :height, :width].to(image.device),
            spread[..., :height, :width].to(image.device) if many else None,
        )

    def _seeds(self, size: int) -> list[int]:
        given = list(self.seeds[:size])
        return given + [given[-1] + n for n in range(1, size - len(given) + 1)]

    def _condition(self, image: Planes, noise: NoiseProfile) -> Condition:
        sigma = noise.sigma_map(image)
        level = torch.full((len(image),), noise.sigma, device=self.device)
        centre = centre_of(self.blind_spot, image, level, sigma, self.network.profile)
        factor = self.network.profile.recorruption
        return Condition(
            centre,
            image,
            sigma,
            noise.correlation().to(self.device).expand(len(image), -1),
            target_sigma=sigma / factor if factor else sigma,
        )

    def _recorrupted(
        self, image: Planes, noise: NoiseProfile, generators: Sequence[torch.Generator]
    ) -> Condition:
        """Return the condition that is made from y + a z."""
        factor = self.network.profile.recorruption
        acf = torch.from_numpy(noise.acf).float()
        spectrum = spectrum_of(acf, int(image.shape[-2]), int(image.shape[-1]))
        fresh = torch.stack([correlated_noise(spectrum, g) for g in generators])[:, None]
        more = math.sqrt(1 + factor**2)
        noisy = image + factor * noise.sigma_map(image) * fresh.to(self.device)
        return self._condition(noisy, noise.weakened(more))

    def _estimate(self, condition: Condition, generators: Sequence[torch.Generator]) -> Sample:
        sampling, shape = self.sampling, condition.image.shape[1:]
        count = sampling.pairs * (2 if sampling.mode == "independent_samples" else 1)
        drawn = [torch.randn(count, *shape, generator=generator) for generator in generators]
        noise = torch.stack(drawn, 1).to(self.device)
        sigma = 2 * condition.target_sigma

        def predict(z: Tensor, alpha_bar: float) -> Tensor:
            a = torch.full((len(z),), alpha_bar, device=self.device)
            with mixed_precision(self.device):
                return self.network(z, a, condition.repeated(len(z) // len(condition.image)))

        if sampling.mode == "srds":
            return srds_sample(predict, noise, self.schedule, sampling.steps, sigma)
        if sampling.mode == "independent_samples":
            samples = ddim_sample(predict, noise.flatten(0, 1), self.schedule, sampling.steps)
            return mean_and_spread(samples.reshape(noise.shape), sigma)
        if sampling.mode == "one_step":
            mean = predict(noise[0], float(self.schedule.alpha_bar[-1]))
        else:
            mean = ddim_sample(
                predict,
                noise[0],
                self.schedule,
                sampling.steps,
                eta=float(sampling.mode == "stochastic_sample"),
                generator=generators[0],
            )
        return Sample(mean, torch.zeros_like(mean))
