"""Makes the pixels of phases between acquired ones, and judges the motion that they rest on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float32

from stillscan.models.motion.averaging import interpolation_variance
from stillscan.models.motion.fields import compose, integrate, jacobian_determinant, warp
from stillscan.models.motion.registration import between, register
from stillscan.models.noise.profile import NoiseProfile
from stillscan.operators.denoising.plan import Plan
from stillscan.operators.denoising.temporal import FARTHEST_MM
from stillscan.operators.errors import ResultError
from stillscan.operators.interpolation.phases import MadePhase
from stillscan.operators.volume import VolumeBlock

MOVING = 0.5  # pixels: a smaller displacement is none
EXPLAINED = 0.95  # share of the moving pixels that must agree within 3 sigma
FARTHEST_OFF = 3.0  # sigma
INCONSISTENT = 1.0  # pixels, root mean square
FEWEST = 100  # moving pixels: the share among fewer is not known


class FoldingError(ResultError):
    """The motion between two phases folds, so no image lies between them."""

    reason = "folding"


class MotionNotExplainedError(ResultError):
    """One phase moved onto the next differs from it by more than noise."""

    reason = "motion-not-explained"


def made_pixels(
    phases: Sequence[MadePhase], block: VolumeBlock, at: dict[int, int], plan: Plan
) -> dict[int, Float32[np.ndarray, "row column"]]:
    """Return the pixels of the made phases of one place by their number in `phases`.

    Args:
        phases: of the place.
        block: its acquired slices.
        at: for each index in `volume.slices`, its number in the block.
        plan: scaling and noise of the series.

    Raises:
        FoldingError, MotionNotExplainedError: if one of them may not be shown.
    """
    made = [number for number, each in enumerate(phases) if each.is_made]
    pairs = sorted({(phases[number].first, phases[number].second) for number in made})
    network = torch.from_numpy(plan.scaling.to_network(block.pixels))[:, None]
    one, other = (network[[at[pair[side]] for pair in pairs]] for side in (0, 1))
    velocity = register(one, other)
    down, across = block.volume.slices[0].plane.spacing_mm
    farthest = FARTHEST_MM / max(down, across)
    for pair, a, b, v in zip(pairs, one, other, velocity, strict=True):
        numbers = " and ".join(str(at[index] + 1) for index in pair)
        _require_explained(a[None], b[None], v[None], plan.noise, farthest, numbers)
    pixels = {}
    for number in made:
        phase = phases[number]
        which = pairs.index((phase.first, phase.second))
        one_of_them = slice(which, which + 1)
        image = between(one[one_of_them], other[one_of_them], velocity[one_of_them], phase.gamma)
        pixels[number] = plan.scaling.to_modality(image[0, 0].numpy())
    return pixels


def _require_explained(
    a: torch.Tensor,
    b: torch.Tensor,
    velocity: torch.Tensor,
    noise: NoiseProfile,
    farthest: float,
    numbers: str,
) -> None:
    forward, backward = integrate(velocity), integrate(-velocity)
    if bool((jacobian_determinant(forward) <= 0).any()):
        raise FoldingError(f"the motion between phases {numbers} of a place folds")
    apart = float(compose(forward, backward).square().sum(1).mean().sqrt())
    length = forward.square().sum(1, keepdim=True).sqrt()
    moving = length > MOVING
    sigma = noise.sigma_map(b)
    correlation = noise.correlation()
    left = interpolation_variance(forward, (float(correlation[1]), float(correlation[0])))
    off = (warp(a, forward, "bicubic") - b).abs() > FARTHEST_OFF * sigma * (1 + left).sqrt()
    explained = 1 - float(off[moving].float().mean()) if int(moving.sum()) >= FEWEST else 1.0
    if apart > INCONSISTENT or float(length.max()) > farthest or explained < EXPLAINED:
        raise MotionNotExplainedError(
            f"between phases {numbers} of a place: {explained:.1%} of the moving pixels agree "
            f"(expected {EXPLAINED:.0%}), forward and backward motion differ by {apart:.2g} px, "
            f"the largest is {float(length.max()):.3g} px (at most {farthest:.3g})"
        )
