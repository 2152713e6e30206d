"""CT noise as it arises: in projections, reconstructed by filtered back-projection.

An equiangular fan beam turns once around the slice (Kak and Slaney 1988, chapter 3.4). The noise of
each line integral follows from the counts that the slice itself lets through (Poisson) and from the
electronics; back-projection is linear, so that the noise is reconstructed alone. It is stronger in
the middle of a body, has a direction behind bones, and its spectrum is that of ramp and kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

Plane = Float[Tensor, "height width"]
Sinogram = Float[Tensor, "view channel"]

SOURCE_MM = 570.0  # from the source to the axis
WATER_PER_MM = 0.0195
CHANNEL_PX = 0.7  # width of a channel at the axis
ELECTRONIC_COUNTS = 8.0
LEAST_COUNTS = 50.0  # on the worst ray: below, streaks of starved rays are another problem
BODY_HU = -300.0
WINDOW = 80  # pixels, of the spectrum


@dataclass(frozen=True)
class Kernel:
    """Reconstruction kernel: the ramp times exp(-(f / cutoff)^order / 2), or an enhanced one.

    Attributes:
        cutoff: in cycles per pixel.
        order: how steeply it falls.
        enhancement: b of 1 + b (f / cutoff)^2, cut at 1.25 cutoff; 0 for none.
    """

    cutoff: float
    order: float = 2.0
    enhancement: float = 0.0

    def window(self, frequency: Tensor) -> Tensor:
        """Response beside the ramp."""
        relative = frequency / self.cutoff
        if self.enhancement:
            return (1 + self.enhancement * relative**2) * (relative < 1.25)
        return torch.exp(-(relative**self.order) / 2)

    @classmethod
    def drawn(cls, generator: Generator) -> Kernel:
        """Draw a kernel, soft to bone; a quarter enhances edges."""
        cutoff, order, kind, b = torch.rand(4, generator=generator).tolist()
        return cls(0.16 + 0.3 * cutoff, 2 + 2 * order, 0.2 + 0.8 * b if kind < 0.25 else 0.0)


def noise_fields(
    hu: Plane, pixel_mm: float, kernels: list[Kernel], generator: Generator
) -> Float[Tensor, "kernel height width"]:
    """Draw the noise of one slice, one realisation for each kernel, of unit power in the body.

    Args:
        hu: square slice in Hounsfield units.
        pixel_mm: size of its pixels.
        kernels: of the reconstruction.
        generator: source of all random choices: views, bow tie, tube current, counts.
    """
    side = len(hu)
    fan = math.asin(min(0.95, side * pixel_mm / math.sqrt(2) / SOURCE_MM))
    step = CHANNEL_PX * pixel_mm / SOURCE_MM
    reach = math.ceil(fan / step)
    gamma = step * torch.arange(-reach, reach + 1)
    views = int(torch.randint(600, 901, (), generator=generator))
    beta = 2 * math.pi * torch.arange(views) / views
    deviation = _deviation(_line_integrals(hu, pixel_mm, beta, gamma), gamma, generator)
    frequency = torch.fft.rfftfreq(4 * len(gamma)) / CHANNEL_PX  # cycles per pixel
    filtered = []
    for kernel in kernels:
        noise = deviation * torch.randn(deviation.shape, generator=generator)
        response = frequency * kernel.window(frequency)  # (gamma / sin gamma)^2 is left out: 5 %
        spectrum = torch.fft.rfft(noise * gamma.cos(), 4 * len(gamma)) * response
        filtered.append(torch.fft.irfft(spectrum)[:, : len(gamma)])
    fields = _back_projected(torch.stack(filtered), side, pixel_mm, beta, step)
    body = hu > BODY_HU
    return fields / fields[:, body].square().mean(1).sqrt()[:, None, None]


def spectrum_of_field(field: Plane) -> Float[Tensor, "window window"]:
    """Mean power spectrum of the field's windows of WINDOW x WINDOW pixels."""
    windows = field.unfold(0, WINDOW, WINDOW // 4).unfold(1, WINDOW, WINDOW // 4)
    return torch.fft.fft2(windows.reshape(-1, WINDOW, WINDOW)).abs().square().mean(0)


def _line_integrals(hu: Plane, pixel_mm: float, beta: Tensor, gamma: Tensor) -> Sinogram:
    """Integrate attenuation along every ray: on every eighth view, steps of two pixels."""
    side = len(hu)
    attenuation = (WATER_PER_MM * (1 + hu / 1000)).clamp(min=0)[None, None]
    along = SOURCE_MM + pixel_mm * torch.arange(-0.71 * side, 0.71 * side, 2)
    some = torch.cat([beta[::8], beta[:1]])
    integrals = []
    for angle in some:
        direction = angle + math.pi + gamma[:, None]  # from the source, towards the axis at gamma 0
        x = SOURCE_MM * torch.cos(angle) + along * torch.cos(direction)
        y = SOURCE_MM * torch.sin(angle) + along * torch.sin(direction)
        grid = torch.stack([x, y], 2)[None] * (2 / (side * pixel_mm))
        sampled = F.grid_sample(attenuation, grid, align_corners=False)[0, 0]
        integrals.append(2 * pixel_mm * sampled.sum(1))
    between = torch.stack(integrals).T[None]
    return F.interpolate(between, size=len(beta), mode="linear", align_corners=True)[0].T


def _deviation(integrals: Sinogram, gamma: Tensor, generator: Generator) -> Sinogram:
    """Standard deviation of each line integral; the dose is such that no ray starves."""
    modulation, bow_tie, dose = torch.rand(3, generator=generator).tolist()
    most = integrals.max(1, keepdim=True).values
    current = torch.exp((0.2 + 0.6 * modulation) * (most - most.mean()))
    relative = current * torch.exp(-2 * bow_tie * (gamma / gamma.max()) ** 2 - integrals)
    counts = relative * (LEAST_COUNTS * math.exp(4 * dose) / relative.min())
    return (counts + ELECTRONIC_COUNTS**2).sqrt() / counts


def _back_projected(
    filtered: Float[Tensor, "kernel view channel"],
    side: int,
    pixel_mm: float,
    beta: Tensor,
    step: float,
) -> Float[Tensor, "kernel height width"]:
    """Sum over the views, weighed by the inverse square of the distance from the source."""
    axis = pixel_mm * (torch.arange(side) - (side - 1) / 2)
    y, x = axis[:, None], axis[None, :]
    middle = filtered.shape[2] // 2
    total = torch.zeros(len(filtered), side * side)
    for view, angle in enumerate(beta):
        cos, sin = torch.cos(angle), torch.sin(angle)
        depth = SOURCE_MM - (x * cos + y * sin)
        across = x * sin - y * cos
        place = (torch.atan2(across, depth) / step + middle).clamp(0, 2 * middle - 1e-3).flatten()
        left = place.floor().long()
        share = place - left
        line = filtered[:, view]
        value = torch.lerp(line[:, left], line[:, (left + 1).clamp(max=2 * middle)], share)
        total += value / (depth.square() + across.square()).flatten()
    return total.reshape(-1, side, side)
