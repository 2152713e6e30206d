"""Interface of the inference backends for the student network.

An engine computes the student's convolutions with some library. It gets the input planes of the
network (`network_input`) and returns the planes of the noise and of the log variance, before they
are bounded. Everything else, and with it all that keeps the image's bits, is shared by all engines.
"""

from __future__ import annotations

from typing import Literal, Protocol, cast, runtime_checkable

import torch
from torch import nn

from stillscan.models.engines.cuda_graphs import CapturedFunction
from stillscan.models.networks.student import Planes, Seen

EngineName = Literal["torch", "ncnn", "openvino"]
WantedEngine = Literal["auto", "torch", "ncnn", "openvino"]
Precision = Literal["float32", "bfloat16", "int8"]

PIECE = 512  # half-resolution pixels: the longest side that is computed without tiles

DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class EngineError(ValueError):
    """The engine is not installed, or does not support what is requested."""


@runtime_checkable
class Convolutions(Protocol):
    """The part of a student network that an engine may call."""

    def planes(self, seen: Seen) -> tuple[Planes, Planes]:
        """Compute the four planes of the noise and of its log variance, before their bounds."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Computes the convolutions of one student network.

    Attributes:
        name: name of the library, as in the settings.
        precision: precision of the products.
        device: torch device on which its input must lie.
        piece: longest side of an image or tile that it should be given, in half-resolution pixels;
            its memory grows with the square of it.
    """

    name: EngineName
    precision: Precision
    device: torch.device
    piece: int

    def run(self, seen: Seen) -> tuple[Planes, Planes]:
        """Compute the planes of the noise and of the log variance of its error, float32."""
        ...


class TorchEngine:
    """Runs the network with torch on any device; on a GPU from one CUDA graph for each shape."""

    name: EngineName = "torch"
    piece = PIECE

    def __init__(
        self,
        network: nn.Module,
        device: torch.device | str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        """Move the network to the device.

        Raises:
            EngineError: if torch has no kernels for the precision.
        """
        if precision not in DTYPES:
            raise EngineError(f"engine torch has no {precision}; it has {', '.join(DTYPES)}")
        self.precision = precision
        self.device = torch.device(device)
        moved = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network = cast(Convolutions, moved.eval())
        on_gpu = self.device.type == "cuda"
        self._planes = CapturedFunction(self._called) if on_gpu else self._called

    @torch.inference_mode()
    def run(self, seen: Seen) -> tuple[Planes, Planes]:
        """See `Engine`."""
        noise, log_variance = self._planes(seen.contiguous(memory_format=torch.channels_last))
        return noise, log_variance

    def _called(self, seen: Seen) -> tuple[Planes, Planes]:
        dtype = DTYPES[self.precision]
        with torch.autocast(self.device.type, dtype, enabled=self.precision != "float32"):
            noise, log_variance = self._network.planes(seen)
        return noise.float(), log_variance.float()
