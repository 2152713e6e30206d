"""The layers of a student network in the operations of any library.

`StudentNetwork.planes` is written here once more; an engine other than torch supplies only what
its library calls a convolution, an addition and a transposed convolution.
"""

from __future__ import annotations

from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float32
from numpy import ndarray
from torch import nn

Weights = dict[str, Float32[ndarray, "*shape"]]
Value = TypeVar("Value")


@runtime_checkable
class Operations(Protocol[Value]):
    """The operations of a library; `name` is the name of the layer in the network's weights."""

    def convolution(self, name: str, x: Value, stride: int = 1, *, relu: bool = False) -> Value:
        """Convolve with bias; zeros keep the size for stride 1, no padding for a larger stride."""
        ...

    def up(self, name: str, x: Value) -> Value:
        """Apply a transposed convolution, 2 x 2, stride 2, with bias."""
        ...

    def add(self, x: Value, y: Value) -> Value:
        """Add two values of one shape."""
        ...


def weights_of(network: nn.Module) -> Weights:
    """Return the weights by the names of their layers."""
    return {
        name: np.ascontiguousarray(tensor.detach().cpu().float().numpy())
        for name, tensor in network.state_dict().items()
    }


def planes_of(weights: Weights, library: Operations[Value], seen: Value) -> tuple[Value, Value]:
    """Build the four planes of the noise and of its log variance."""
    downs, middle = (_count(weights, f"body.{part}.") for part in ("downs", "middle"))

    def block(name: str, x: Value) -> Value:
        first = library.convolution(f"{name}.first", x, relu=True)
        return library.add(x, library.convolution(f"{name}.second", first))

    x = library.convolution("body.enter", seen)
    skips = []
    for level in range(downs):
        x = block(f"body.encoders.{level}", x)
        skips.append(x)
        x = library.convolution(f"body.downs.{level}", x, stride=2)
    for number in range(middle):
        x = block(f"body.middle.{number}", x)
    for level in reversed(range(downs)):  # ups and decoders are numbered like the encoders
        x = library.add(library.up(f"body.ups.{level}", x), skips.pop())
        x = block(f"body.decoders.{level}", x)
    hidden = library.convolution("log_variance.0", x, relu=True)
    return library.convolution("noise", x), library.convolution("log_variance.2", hidden)


def _count(weights: Weights, start: str) -> int:
    """Return how many layers or blocks are numbered after `start`."""
    return len(
        {name.removeprefix(start).split(".")[0] for name in weights if name.startswith(start)}
    )
