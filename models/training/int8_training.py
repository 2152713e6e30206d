"""Training of an int8 student: it imitates the floating-point student that it was made from."""

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
    """Set the first rounding steps from the largest inputs of the exact network's convolutions.

    Args:
        network: the rounding network, made by `quantized` from the exact one.
        exact: the network that does not round.
        batches: a few training batches.
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
    """Return the objective of imitating `exact`: the loss is the fall of an example's PSNR.

    Mean over the examples of log(1 + d^2 / e^2): d is the difference of the two networks, e the
    error of the exact one, which is assumed to be independent of it. Reported in dB.
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
