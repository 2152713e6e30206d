"""The student on OpenVINO, on a CPU: closer to the processor's peak than torch."""

from __future__ import annotations

import sys
from collections import OrderedDict
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from stillscan.models.engines.engine import PIECE, EngineError, EngineName, Precision
from stillscan.models.engines.graph import planes_of, weights_of
from stillscan.models.networks.quantization import LARGEST_WEIGHT, SMALLEST, roundings
from stillscan.models.networks.student import Planes, Seen

# with int8 the graph itself says which layers round; the others are float32
HINTS: dict[Precision, str] = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
COMPILED = 4  # number of shapes whose compiled networks are kept


class OpenVinoEngine:
    """Compiles the network for every new shape, in about 0.2 s, and keeps the last few.

    The graph is built from the weights; no file is converted or written.
    """

    name: EngineName = "openvino"
    piece = PIECE

    def __init__(self, network: nn.Module, precision: Precision = "float32") -> None:
        """Load the library.

        Args:
            network: the student with its weights; for int8 one trained for it (quantization.py).
            precision: precision of the products.

        Raises:
            EngineError: if the library is not installed, or the network was not trained for int8.
        """
        openvino = _openvino()
        self.precision = precision
        self.device = torch.device("cpu")
        self._threads = torch.get_num_threads()
        self._core = openvino.Core()
        self._graph = _Graph(network)
        if (precision == "int8") != bool(self._graph.roundings):
            trained = "int8 only" if self._graph.roundings else "no int8"
            raise EngineError(f"this network was trained for {trained}; precision is {precision}")
        self._compiled: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._lock = Lock()
        self._idle: dict[tuple[int, ...], list[Any]] = {}  # requests that are not in use

    @torch.inference_mode()
    def run(self, seen: Seen) -> tuple[Planes, Planes]:
        """See `Engine`; may be called from several threads, each of which uses one core."""
        shape = tuple(seen.shape)
        request = self._request(shape)
        results = request.infer([seen.contiguous().numpy()])
        noise, log_variance = (torch.from_numpy(results[i].copy()) for i in range(2))
        with self._lock:
            self._idle.setdefault(shape, []).append(request)
        return noise, log_variance

    def _request(self, shape: tuple[int, ...]) -> Any:
        """Take an unused inference request for the network that is compiled for this shape.

        Requests are not thread-local: a thread that Python did not start (holoscan's) loses its
        local data after every call, and the request would be lost with it.
        """
        with self._lock:
            network = self._network(shape)
            idle = self._idle.get(shape)
            return idle.pop() if idle else network.create_infer_request()

    def _network(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._compiled:
            self._compiled[shape] = self._core.compile_model(
                self._graph.model(shape),
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": HINTS[self.precision],
                    "INFERENCE_NUM_THREADS": self._threads,
                    "NUM_STREAMS": self._threads,  # one thread for each slice or tile
                    "ENABLE_CPU_PINNING": False,  # other processes share the machine
                },
            )
            if len(self._compiled) > COMPILED:
                oldest, _ = self._compiled.popitem(last=False)
                self._idle.pop(oldest, None)
        self._compiled.move_to_end(shape)
        return self._compiled[shape]


class _Graph:
    """The student in OpenVINO's operations."""

    def __init__(self, network: nn.Module) -> None:
        from openvino import opset13

        self._operations = opset13
        self._weights = weights_of(network)
        self.roundings = roundings(network)

    def model(self, shape: tuple[int, ...]) -> Any:
        """Build the network for inputs of this shape."""
        from openvino import Model

        seen = self._operations.parameter(list(shape), np.float32)
        return Model(list(planes_of(self._weights, self, seen)), [seen], "student")

    def convolution(self, name: str, x: Any, stride: int = 1, *, relu: bool = False) -> Any:
        """See `stillscan.models.engines.graph.Operations`."""
        weight = self._weights[f"{name}.weight"]
        around = [0 if stride > 1 else weight.shape[-1] // 2] * 2
        constant = self._operations.constant(weight)
        rounding = self.roundings.get(name)
        if rounding is not None:
            ends = rounding.step * np.array([rounding.lowest, rounding.highest], np.float32)
            x = self._rounded(x, ends[0], ends[1], levels=256)
            # the library has only 8-bit weights: the same steps, with a range that is not used up
            largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True).clip(SMALLEST)
            end = largest / LARGEST_WEIGHT * 127
            constant = self._rounded(constant, -end, end, levels=255)
        made = self._operations.convolution(x, constant, [stride] * 2, around, around, [1, 1])
        made = self.add(made, self._bias(name))
        return self._operations.relu(made) if relu else made

    def up(self, name: str, x: Any) -> Any:
        """See `stillscan.models.engines.graph.Operations`."""
        weight = self._operations.constant(self._weights[f"{name}.weight"])
        made = self._operations.convolution_backprop_data(
            x, weight, [2, 2], pads_begin=[0, 0], pads_end=[0, 0], dilations=[1, 1]
        )
        return self.add(made, self._bias(name))

    def add(self, x: Any, y: Any) -> Any:
        """See `stillscan.models.engines.graph.Operations`."""
        return self._operations.add(x, y)

    def _rounded(self, x: Any, lowest: Any, highest: Any, levels: int) -> Any:
        """Round to one of `levels` values between the limits."""
        limits = [self._operations.constant(np.asarray(each)) for each in (lowest, highest)] * 2
        return self._operations.fake_quantize(x, *limits, levels)

    def _bias(self, name: str) -> Any:
        return self._operations.constant(self._weights[f"{name}.bias"].reshape(1, -1, 1, 1))


def _openvino() -> ModuleType:
    """Import the library without its telemetry and its converter.

    The import would send a message to an outside server, from a forked process that outlives this
    one, and the converter of foreign models would double its time.

    Raises:
        EngineError: if it is not installed.
    """
    for left_out in ("openvino_telemetry", "openvino.tools.ovc"):
        sys.modules.setdefault(left_out, None)  # type: ignore[arg-type]  # not importable
    try:
        import openvino
    except ImportError as error:
        raise EngineError("engine openvino is not installed") from error
    return openvino
