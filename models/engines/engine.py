"""What multiplies: the student's convolutions behind one door, whichever library runs them.

An engine is given what the network sees (`network_input`) and gives back the planes
of the noise and of the log variance, before their bounds. Everything else, and with it everything
that keeps the image's bits, is the same for all engines.
"""

from __future__ import annotations

from typing import Literal, Protocol, cast, runtime_checkable

import torch
from torch import nn

from stillscan.models.engines.cuda_graphs import CapturedFunction
from stillscan.models.networks.student import Planes, Seen

EngineName = Literal["torch", "ncnn", "openvino", "onnxruntime", "tensorrt"]
WantedEngine = Literal["auto", "torch", "ncnn", "openvino", "onnxruntime", "tensorrt"]
Precision = Literal["float32", "bfloat16", "int8"]

PIECE = 512  # half-resolution pixels: the longest side that is computed in one piece

DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class EngineError(ValueError):
    """The engine is not installed, or cannot do what it is asked for."""


@runtime_checkable
class Convolutions(Protocol):
    """What an engine needs of a student."""

    def planes(self, seen: Seen) -> tuple[Planes, Planes]:
        """The four planes of the noise and of its log variance, before their bounds."""
        ...


@runtime_checkable
class Engine(Protocol):
    """The convolutions of one student.

    Attributes:
        name: of the library, as in the settings.
        precision: of the products.
        device: where what it is given must lie.
        piece: the longest side that it should be given, in half-resolution pixels: what it needs
            of memory grows with the square of it.
    """

    name: EngineName
    precision: Precision
    device: torch.device
    piece: int

    def run(self, seen: Seen) -> tuple[Planes, Planes]:
        """Planes of the noise and of the log variance of its error, float32."""
        ...


class TorchEngine:
    """torch itself, on any device that it knows; on a GPU from one captured graph per shape."""

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
