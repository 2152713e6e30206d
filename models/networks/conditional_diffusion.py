"""Stage 2: a diffusion model of noisy images, conditioned on a blind-spot estimate.

Its z_0 is a *noisy* image on [-1, 1], its condition an estimate c of the clean one. A sample is
"clean image + fresh noise", so a mean over samples estimates E[target | c]. That is E[x | c] only
where target and condition do not share noise: c = BSN(y) does (its neighbouring pixels are made
from y), and a capable network reproduces the noise: the leak. The default profile makes the
condition from y + a z and the target y - z / a, whose noise is independent of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stillscan.models.networks.blind_spot import BlindSpotNetwork, with_centre
from stillscan.models.networks.precision import mixed_precision
from stillscan.models.networks.student import network_input, squash
from stillscan.models.networks.unet import PlainUNet
from stillscan.models.noise.profile import CORRELATION_LAGS

Planes = Float[Tensor, "batch 1 height width"]
Values = Float[Tensor, " batch"]

Prediction = Literal["eps", "x0", "v"]
TIME_PLANES = 3


@dataclass(frozen=True)
class Profile:
    """How the conditional model is parameterised and trained.

    Attributes:
        prediction: quantity that the loss compares: the noise eps, the image z_0, or
            v = sqrt(a) eps - sqrt(1 - a) z_0 (Salimans and Ho 2022).
        loss: L2 estimates the mean, L1 the median.
        recorruption: a: the condition is made from y + a z and the target is y - z / a. 0: both
            are y, as published.
        sees_image: whether the condition also contains the recorrupted image.
        preconditioned: the network starts as the exact sampler of white noise around the condition;
            otherwise its output is `prediction` itself.
        centre_pixel: c is the blind-spot estimate with each pixel's own value put back, weighed by
            the known noise. Its error never exceeds the noise, so that weak noise can be treated,
                which the bare estimate misses by far. Needs `recorruption`, otherwise noise leaks.
    """

    prediction: Prediction = "v"
    loss: Literal["L1", "L2"] = "L2"
    recorruption: float = 0.5
    sees_image: bool = True
    preconditioned: bool = True
    centre_pixel: bool = False

    def __post_init__(self) -> None:
        """Check that input and target do not share the noise of the centre pixel.

        Raises:
            ValueError: for a centre pixel without recorruption.
        """
        if self.centre_pixel and not self.recorruption:
            raise ValueError("centre_pixel needs recorruption, otherwise noise leaks")


DEFAULT = Profile(centre_pixel=True)
PAPER = Profile("eps", "L1", recorruption=0.0, sees_image=False, preconditioned=False)


@dataclass(frozen=True)
class Condition:
    """The inputs on which a sample is conditioned, on the scale of the image ([0, 1]), not of z.

    Attributes:
        centre: c, an estimate of the clean image.
        image: what c was made from: y, or the recorrupted y + a z.
        sigma: standard deviation of the noise in `image`.
        correlation: correlation of that noise at CORRELATION_LAGS.
        target_sigma: standard deviation of the noise that samples contain.
    """

    centre: Planes
    image: Planes
    sigma: Planes
    correlation: Float[Tensor, "batch lag"]
    target_sigma: Planes

    def repeated(self, times: int) -> Condition:
        """Repeat the batch `times` times, one whole batch after the other."""
        return Condition(*(each.repeat(times, *[1] * (each.ndim - 1)) for each in self._tensors()))

    def _tensors(self) -> tuple[Tensor, ...]:
        return (self.centre, self.image, self.sigma, self.correlation, self.target_sigma)


class DiffusionNetwork(nn.Module):
    """Predicts z0_hat from z_t, the share of signal alpha_bar_t, and the condition.

    It is the student's network with more inputs. Every input is a difference from the
    condition in units of the noise, so one network serves all levels.

    Args:
        profile: parameterisation of the model.
        widths: channels at half resolution and below.
        middle_blocks: residual blocks at the coarsest resolution.
    """

    def __init__(
        self,
        profile: Profile = DEFAULT,
        widths: tuple[int, ...] = (32, 64, 128),
        middle_blocks: int = 2,
    ) -> None:
        super().__init__()
        self.profile = profile
        self.widths = tuple(widths)
        self.middle_blocks = middle_blocks
        self.multiple = 2 ** len(widths)
        channels = 4 + TIME_PLANES + 4 + 2 + len(CORRELATION_LAGS) + 4 * profile.sees_image
        self.body = PlainUNet(channels, self.widths, middle_blocks)
        self.output = nn.Conv2d(self.widths[0], 4, 3, padding=1)
        nn.init.zeros_(self.output.weight)  # preconditioned: begins as the condition itself
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def forward(self, z_t: Planes, alpha_bar: Values, condition: Condition) -> Planes:
        """Predict z0_hat.

        Args:
            z_t: noisy sample on the scale of z; height and width divisible by `multiple`.
            alpha_bar: share of signal at each image's timestep.
            condition: condition of each image.
        """
        a = alpha_bar[:, None, None, None]
        base = 2 * condition.centre - 1
        deviation = 2 * condition.target_sigma  # standard deviation of z_0 around the condition
        u = z_t - a.sqrt() * base
        variance = a * deviation**2 + (1 - a)
        features = self.body(self._seen(u / variance.sqrt(), a, condition))
        out = F.pixel_shuffle(self.output(features), 2).float()
        if self.profile.preconditioned:
            skip = a.sqrt() * deviation**2 / variance
            scale = deviation * (1 - a).sqrt() / variance.sqrt()
            return base + skip * u + scale * out
        if self.profile.prediction == "x0":
            return base + out
        if self.profile.prediction == "eps":
            return (z_t - (1 - a).sqrt() * out) / a.sqrt()
        return a.sqrt() * z_t - (1 - a).sqrt() * out

    def _seen(self, u: Planes, a: Tensor, condition: Condition) -> Tensor:
        shown = condition.image if self.profile.sees_image else condition.centre
        planes = [
            F.pixel_unshuffle(u, 2),
            network_input(shown, condition.sigma, condition.correlation),
        ]
        if self.profile.sees_image:
            difference = (condition.image - condition.centre) / condition.sigma
            planes.append(F.pixel_unshuffle(squash(difference), 2))
        time = torch.cat([((1 - a) / a).log() / 8, a.sqrt(), (1 - a).sqrt()], 1)
        return torch.cat([*planes, time.expand(-1, -1, *planes[0].shape[-2:])], 1)


def prediction_error(error: Planes, a: Tensor, profile: Profile, target_sigma: Planes) -> Planes:
    """Convert the error of z0_hat into the error of the quantity that the profile predicts.

    eps: sqrt(a / (1 - a)) times it; v: 1 / sqrt(1 - a) times it. A preconditioned network is
    compared in units of its target (Karras et al. 2022, section 5): unit variance at every
    timestep and every level of noise.
    """
    if profile.preconditioned:
        deviation = 2 * target_sigma
        scale = deviation * (1 - a).sqrt() / (a * deviation**2 + (1 - a)).sqrt()
        return error / scale
    if profile.prediction == "eps":
        return error * (a / (1 - a)).sqrt()
    return error if profile.prediction == "x0" else error / (1 - a).sqrt()


def centre_of(
    blind_spot: BlindSpotNetwork, image: Planes, level: Values, sigma: Planes, profile: Profile
) -> Planes:
    """Compute c, as the profile defines it, from an image with this noise."""
    with mixed_precision(image.device):
        mean, log_variance = blind_spot(image, level)
    if not profile.centre_pixel:
        return mean
    variance = log_variance.exp() * level[:, None, None, None] ** 2
    centre, _ = with_centre(mean, variance, image, sigma**2)
    return centre
