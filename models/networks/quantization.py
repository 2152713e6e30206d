"""int8: a student whose convolutions multiply 8-bit integers, trained with this rounding.

The input of a convolution is divided by a step and rounded to 8 bits; the step is learned with
the weights (learned step size quantization, Esser et al. 2020, arXiv 1902.08153). The input of the
network, its sums (residual path, skips) and its last layers stay float32: only the inputs of
convolutions are rounded.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stillscan.models.networks.student import StudentNetwork
from stillscan.models.networks.unet import Features

SIGNED = (-128, 127)
UNSIGNED = (0, 255)
SMALLEST = 1e-12  # lower limit of a channel's largest weight, so that its step is not 0
LARGEST_WEIGHT = 63  # 7 bits: a processor without VNNI adds two products in 16 bits
RATE = 10.0  # steps learn that much faster than weights
REACHED = 0.3  # share of the largest value that the integers cover at first

# The first and last layers, and the layer that would lose most, stay float32; transposed
# convolutions are a small part of the work.
EXACT = ("body.enter", "body.ups", "body.decoders.0.first", "noise", "log_variance")


@dataclass(frozen=True)
class Rounding:
    """How a convolution rounds its input: to integers from `lowest` to `highest`, times `step`.

    Its weights are rounded to `LARGEST_WEIGHT` steps on either side of 0, one step for each output
    channel: that of its largest weight.
    """

    step: float
    lowest: int
    highest: int


class QuantizedConvolution(nn.Module):
    """A 3 x 3 or 2 x 2 convolution of integers, computed in floating point for training.

    Rounding lets gradients through (straight-through estimator); clipping stops them.

    Args:
        exact: the convolution whose weights and names it takes over.
        signed: whether its input may be negative.
    """

    def __init__(self, exact: nn.Conv2d, *, signed: bool) -> None:
        super().__init__()
        self.weight, self.bias = exact.weight, exact.bias
        self.log_step = nn.Parameter(torch.zeros(()))  # of the input, / RATE
        self._stride, self._padding = exact.stride, exact.padding
        self._levels = SIGNED if signed else UNSIGNED

    def forward(self, x: Features) -> Float[Tensor, "batch feature row column"]:
        """Convolve the rounded input with the rounded weights."""
        step = (RATE * self.log_step).exp()
        whole = _round((x / step).clamp(*self._levels))
        largest = self.weight.detach().abs().amax((1, 2, 3), keepdim=True)
        weight_step = largest.clamp(SMALLEST) / LARGEST_WEIGHT
        weight = _round(self.weight / weight_step) * weight_step
        return F.conv2d(whole * step, weight, self.bias, self._stride, self._padding)

    @property
    def rounding(self) -> Rounding:
        """How the input is rounded, as an engine needs it."""
        return Rounding(math.exp(RATE * self.log_step.item()), *self._levels)

    @torch.no_grad()
    def begin(self, largest: float) -> None:
        """Set the first step for inputs up to `largest`."""
        step = REACHED * max(largest, 1e-6) / self._levels[1]
        self.log_step.fill_(math.log(step) / RATE)


def quantized(network: StudentNetwork) -> StudentNetwork:
    """Return a copy of a student whose inner convolutions round; its steps are not yet trained.

    The names of the weights are kept, so that weights can be exchanged; `log_step` is added.
    """
    network = copy.deepcopy(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d) and not name.startswith(EXACT):
            parent, _, own = name.rpartition(".")
            signed = own != "second"  # the second layer of a block follows a ReLU
            setattr(network.get_submodule(parent), own, QuantizedConvolution(module, signed=signed))
    return network


def roundings(network: nn.Module) -> dict[str, Rounding]:
    """Return how the convolutions of a network round, by name; empty for a float network."""
    return {
        name: module.rounding
        for name, module in network.named_modules()
        if isinstance(module, QuantizedConvolution)
    }


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


def _round(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    rounded: Tensor = _Round.apply(x)  # type: ignore[no-untyped-call]
    return rounded
