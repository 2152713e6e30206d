"""Training examples without a clean image: noisy patches and fresh noise of the same kind."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from stillscan.models.noise import synthesis
from stillscan.models.noise.profile import CORRELATION_LAGS, MAX_LAG, NoiseProfile
from stillscan.models.training.noisy_examples import PATCH

FLAT = 1.5  # in sigma: a patch that varies less is air; it is drawn again, twice

Plane = Float[Tensor, "height width"]
Planes = Float[Tensor, "batch 1 height width"]


@dataclass(frozen=True)
class NoisyImage:
    """A noisy image on about [0, 1] and the profile of its noise, in the same unit.

    Attributes:
        pixels: at least PATCH x PATCH.
        profile: level, signal dependence and correlation of its noise.
        weight: relative frequency with which it is drawn.
        label: a teacher's estimate of the clean image (distillation).
    """

    pixels: Plane
    profile: NoiseProfile
    weight: float = 1.0
    label: Plane | None = None


@dataclass(frozen=True)
class NoisyBatch:
    """Noisy patches, and everything that an objective may use.

    Attributes:
        noisy: y.
        sigma: standard deviation of its noise at each pixel, same unit.
        level: typical sigma of each image.
        acf: correlation coefficients at lags (-MAX_LAG..MAX_LAG)^2.
        fresh: noise drawn anew with the same sigma and correlation, independent of y's.
        label: a teacher's estimate; equal to `noisy` where images have none.
        generator: source of further random numbers of the objective.
    """

    noisy: Planes
    sigma: Planes
    level: Float[Tensor, " batch"]
    acf: Float[Tensor, "batch lag lag"]
    fresh: Planes
    label: Planes
    generator: Generator

    @property
    def correlation(self) -> Float[Tensor, "batch lag"]:
        """Correlation coefficients at CORRELATION_LAGS."""
        return torch.stack(
            [self.acf[:, MAX_LAG + dy, MAX_LAG + dx] for dy, dx in CORRELATION_LAGS], 1
        )

    def to(self, device: torch.device) -> NoisyBatch:
        """Copy the batch to a device; the generator stays on the CPU."""
        return NoisyBatch(
            noisy=self.noisy.to(device),
            sigma=self.sigma.to(device),
            level=self.level.to(device),
            acf=self.acf.to(device),
            fresh=self.fresh.to(device),
            label=self.label.to(device),
            generator=self.generator,
        )


def draw_noisy_batches(
    images: Sequence[NoisyImage],
    size: int,
    seed: int,
    number: int,
    patch: int = PATCH,
    rank: int = 0,
    ranks: int = 1,
    ahead: int = 0,
) -> Iterator[NoisyBatch]:
    """Yield the batches of the run with this seed from `number` on; every rank gets different ones.

    Args:
        images: the noisy images.
        size: number of patches in a batch.
        seed: seed of the run.
        number: number of the first batch.
        patch: height and width of patches.
        rank: rank of this process.
        ranks: number of ranks.
        ahead: number of batches that threads draw in advance; 0: each is drawn when needed. The
            batches are the same either way.
    """

    def draw(number: int) -> NoisyBatch:
        return draw_noisy_batch(images, size, seed, number * ranks + rank, patch)

    if ahead == 0:
        yield from map(draw, count(number))
        return
    pool = ThreadPoolExecutor(ahead)
    try:
        drawn = deque(pool.submit(draw, number + n) for n in range(ahead))
        for following in count(number + ahead):
            batch = drawn.popleft().result()
            drawn.append(pool.submit(draw, following))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)


def draw_noisy_batch(
    images: Sequence[NoisyImage], size: int, seed: int, number: int, patch: int = PATCH
) -> NoisyBatch:
    """Draw batch `number` of the run with this seed: a pure function of its arguments."""
    generator = torch.Generator().manual_seed((seed << 32) + number)
    weights = torch.tensor([image.weight for image in images])
    chosen = torch.multinomial(weights, size, replacement=True, generator=generator)
    parts = [_draw(images[int(i)], patch, generator) for i in chosen]
    noisy, sigma, fresh, label, acf = (torch.stack(part) for part in zip(*parts, strict=True))
    level = torch.tensor([images[int(i)].profile.sigma for i in chosen])
    return NoisyBatch(
        noisy[:, None], sigma[:, None], level, acf, fresh[:, None], label[:, None], generator
    )


def _draw(image: NoisyImage, patch: int, generator: Generator) -> tuple[Tensor, ...]:
    """Draw a patch under a symmetry of the square: y, sigma, fresh noise, label, acf."""
    top, left = _place(image, patch, generator)
    turns, flip = torch.randint(0, 4, (2,), generator=generator).tolist()

    def turned(plane: Tensor) -> Tensor:
        plane = torch.rot90(plane, turns)
        return plane.flip(0) if flip < 2 else plane

    def part(plane: Plane) -> Float[Tensor, "patch patch"]:
        return turned(plane[top : top + patch, left : left + patch]).contiguous()

    y = part(image.pixels)
    acf = turned(torch.from_numpy(image.profile.acf).float()).contiguous()
    place = image.pixels[top : top + patch, left : left + patch]
    sigma = turned(image.profile.sigma_map(place[None, None], (top, left))[0, 0]).contiguous()
    fresh = sigma * synthesis.correlated_noise(synthesis.spectrum_of(acf, patch, patch), generator)
    label = y if image.label is None else part(image.label)
    return y, sigma, fresh, label, acf


def _place(image: NoisyImage, patch: int, generator: Generator) -> tuple[int, int]:
    height, width = image.pixels.shape
    top = left = 0
    for _ in range(3):
        top = int(torch.randint(0, height - patch + 1, (1,), generator=generator))
        left = int(torch.randint(0, width - patch + 1, (1,), generator=generator))
        found = image.pixels[top : top + patch, left : left + patch]
        if float(found.std()) > FLAT * image.profile.sigma:
            break
    return top, left
