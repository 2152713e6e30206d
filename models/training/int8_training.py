"""What a student learns int8 from: the exact one, whose every answer it has to give."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from stillscan.models.networks.quantization import QuantizedConvolution
from stillscan.models.networks.student import StudentNetwork
from stillscan.models.networks.unet import Features
from stillscan.models.training.loop import Losses, Objective
from stillscan.models.training.losses import MSE_FLOOR
from stillscan.models.training.noisy_examples import Batch

LOG_VARIANCE_WEIGHT = 0.01


@torch.no_grad()
def choose_steps(network: StudentNetwork, exact: StudentNetwork, batches: Iterable[Batch]) -> None:
    """The first steps, from the largest values that go into the exact network's convolutions.

    Args:
        network: as `quantized` makes it of the exact one.
        exact: the one that does not round.
        batches: a few, of what it will be trained on.
    """
    layers = {
        exact.get_submodule(name): layer
        for name, layer in network.named_modules()
        if isinstance(layer, QuantizedConvolution)
    }
    largest = dict.fromkeys(layers, 0.0)

    def look(layer: nn.Module, inputs: tuple[Features]) -> None:
        largest[layer] = max(largest[layer], inputs[0].abs().max().item())

    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    for batch in batches:
        exact(batch.noisy, batch.sigma, batch.correlation)
    for hook in hooks:
        hook.remove()
    for layer, rounding in layers.items():
        rounding.begin(largest[layer])


def imitation(exact: StudentNetwork) -> Objective[Batch]:
    """Learn to do what `exact` does: the loss is what an example's PSNR falls by.

    Mean over the examples of log(1 + d^2 / e^2): d is the difference of the two networks, e the
    error of the exact one, which is taken to have nothing to do with it. Reported in dB.
    """
    exact.eval()

    def objective(network: nn.Module, batch: Batch) -> Losses:
        inputs = batch.noisy, batch.sigma, batch.correlation
        with torch.no_grad():
            expected, expected_spread = exact(*inputs)
            error = (expected - batch.noise / batch.sigma).square().mean((1, 2, 3))
        found, spread = network(*inputs)
        difference = (found - expected).square().mean((1, 2, 3))
        loss = (1 + difference / (error + MSE_FLOOR)).log().mean()
        spread_loss = (spread - expected_spread).square().mean()
        return Losses(loss + LOG_VARIANCE_WEIGHT * spread_loss, 10 / math.log(10) * loss)

    return objective
