"""The training loop that all networks share: resumable, on one device or several."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

B = TypeVar("B")


@dataclass(frozen=True)
class Step:
    """The result of one update; `loss` is in the unit that the objective names."""

    number: int
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class Losses:
    """The losses of one batch: the scalar to minimise, and the one to report."""

    total: Tensor
    reported: Tensor


Objective = Callable[[nn.Module, B], Losses]


@dataclass
class Training:
    """The state that a checkpoint holds: network, moving average, optimiser and step.

    Attributes:
        decay: highest rate of the moving average; it begins as (1 + n) / (10 + n).
    """

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    number: int = 0
    decay: float = 0.999

    @classmethod
    def begin(cls, network: nn.Module, learning_rate: float, decay: float = 0.999) -> Training:
        """Start a new run of `network`."""
        optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-4)
        average = copy.deepcopy(network).requires_grad_(False)
        return cls(network, average, optimizer, decay=decay)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for `torch.save`."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "number": self.number,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.number = int(state["number"])


def train(
    training: Training,
    batches: Iterator[B],
    objective: Objective[B],
    steps: int,
    learning_rate: float,
    first: int = 0,
) -> Iterator[Step]:
    """Update until step `steps`, the learning rate falling along a cosine; yield after each.

    Learning rate and moving average count from step `first`: a run may consist of several parts.

    In a process group (`torchrun`), gradients are averaged over its ranks: with the same
    first weights on every rank and different batches, all ranks keep the same weights.
    """
    while training.number < steps:
        rate = learning_rate * schedule(training.number - first, steps - first)
        for group in training.optimizer.param_groups:
            group["lr"] = rate
        losses = objective(training.network, next(batches))
        training.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        average_over_ranks(training.network)
        torch.nn.utils.clip_grad_norm_(training.network.parameters(), 1.0)
        training.optimizer.step()
        training.number += 1
        follow(training.average, training.network, training.number - first, training.decay)
        yield Step(training.number, float(losses.reported.detach()), rate)


def average_over_ranks(network: nn.Module) -> None:
    """Average every gradient over the ranks of the process group, if there is one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    for parameter in network.parameters():
        if parameter.grad is not None:
            distributed.all_reduce(parameter.grad)
            parameter.grad /= distributed.get_world_size()


def schedule(number: int, steps: int, warm_up: int = 200) -> float:
    """Return the factor of the learning rate: a linear start, then half a cosine down to 1 %."""
    return min(1.0, (number + 1) / warm_up) * (
        0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * number / steps))
    )


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, number: int, decay: float) -> None:
    """Update the exponential moving average with the rate min(decay, (1 + n) / (10 + n))."""
    rate = min(decay, (1 + number) / (10 + number))
    for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
        slow.lerp_(fast, 1 - rate)
