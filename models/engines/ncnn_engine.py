"""The student on ncnn, float32, with Winograd's minimal filtering (fewer products).

A 3 x 3 convolution of tiles costs 1.8 to 4 products for each value where the direct form costs 9
(Lavin and Gray, arXiv 1509.09308), so that a processor without bfloat16 is faster than its own
peak of direct convolutions. Rounding grows to about 1e-5 of sigma.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from stillscan.models.engines.engine import EngineError, EngineName, Precision
from stillscan.models.engines.graph import planes_of, weights_of
from stillscan.models.networks.student import Planes, Seen

MAGIC = 7767517  # the first line of a graph in ncnn's format
FLOAT32 = b"\0\0\0\0"  # the tag in front of float32 weights
SEEN = "seen"


class NcnnEngine:
    """Runs one network for all shapes; memory is allocated and released in every call."""

    name: EngineName = "ncnn"
    piece = 384  # Winograd's transforms take three times the memory of direct convolutions

    def __init__(self, network: nn.Module, precision: Precision = "float32") -> None:
        """Load the weights into ncnn.

        Raises:
            EngineError: if the library is not installed, does not start, or the precision is not
                float32.
        """
        if precision != "float32":
            raise EngineError(f"engine ncnn has no {precision}; it has float32")
        try:
            import ncnn
        except ImportError as error:
            raise EngineError("engine ncnn is not installed") from error
        self.precision: Precision = precision
        self.device = torch.device("cpu")
        self._ncnn = ncnn
        graph = _Graph(network)
        self._outputs = graph.outputs
        self._network = ncnn.Net()
        options = self._network.opt
        options.num_threads = 1  # for each caller: slices and tiles run in parallel
        options.use_vulkan_compute = False
        for half in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed"):
            setattr(options, f"use_{half}", False)
        with _file_of(graph.weights()) as weights:
            if self._network.load_param_mem(graph.text()) or self._network.load_model(weights):
                raise EngineError("engine ncnn cannot load the student")

    @torch.inference_mode()
    def run(self, seen: Seen) -> tuple[Planes, Planes]:
        """See `stillscan.models.engines.engine.Engine`; may be called from several threads.

        Raises:
            MemoryError: if the layers need more memory than there is.
        """
        shape = (len(seen), 4, *seen.shape[-2:])
        planes = torch.empty(shape), torch.empty(shape)
        for index, one in enumerate(seen.contiguous().numpy()):
            extractor = self._network.create_extractor()
            extractor.input(SEEN, self._ncnn.Mat(one))
            for plane, name in zip(planes, self._outputs, strict=True):
                status, result = extractor.extract(name)
                if status:
                    raise MemoryError(f"engine ncnn: {name} cannot be computed (status {status})")
                plane[index] = torch.from_numpy(np.array(result))
        return planes


@dataclass(frozen=True)
class _Layer:
    """One line of a graph: ncnn's name of the layer, its inputs and its numbered parameters."""

    kind: str
    inputs: tuple[str, ...]
    output: str
    parameters: str = ""


class _Graph:
    """The student in ncnn's own format: lines of text, and the weights in the same order."""

    def __init__(self, network: nn.Module) -> None:
        self._weights = weights_of(network)
        self._layers = [_Layer("Input", (), SEEN)]
        self._data: list[bytes] = []
        self.outputs = planes_of(self._weights, self, SEEN)

    def convolution(self, name: str, x: str, stride: int = 1, *, relu: bool = False) -> str:
        """See `stillscan.models.engines.graph.Operations`."""
        weight = self._weights[f"{name}.weight"]
        size = weight.shape[-1]
        around = 0 if stride > 1 else size // 2
        shape = f"0={len(weight)} 1={size} 3={stride} 4={around} 5=1 6={weight.size}"
        self._append(weight, name)
        return self._layer("Convolution", (x,), f"{shape} 9={int(relu)}")

    def up(self, name: str, x: str) -> str:
        """See `stillscan.models.engines.graph.Operations`."""
        weight = self._weights[f"{name}.weight"].swapaxes(0, 1)
        self._append(weight, name)
        return self._layer("Deconvolution", (x,), f"0={len(weight)} 1=2 3=2 5=1 6={weight.size}")

    def add(self, x: str, y: str) -> str:
        """See `stillscan.models.engines.graph.Operations`."""
        return self._layer("BinaryOp", (x, y), "0=0")

    def text(self) -> str:
        """Write the graph; a value with several readers is split, as ncnn allows one for each."""
        readers = Counter(each for layer in self._layers for each in layer.inputs)
        copies = {name: [f"{name}_{i}" for i in range(n)] for name, n in readers.items() if n > 1}
        lines, values = [], 0
        for layer in self._layers:
            inputs = [copies[name].pop() if name in copies else name for name in layer.inputs]
            lines.append(_line(layer.kind, inputs, [layer.output], layer.parameters))
            values += 1
            if layer.output in copies:
                made = list(copies[layer.output])
                lines.append(_line("Split", [layer.output], made))
                values += len(made)
        return "\n".join([str(MAGIC), f"{len(lines)} {values}", *lines]) + "\n"

    def weights(self) -> bytes:
        """Return the weights of all layers, one after the other."""
        return b"".join(self._data)

    def _append(self, weight: np.ndarray, name: str) -> None:
        bias = self._weights[f"{name}.bias"]
        self._data += [FLOAT32, weight.astype("<f4").tobytes(), bias.astype("<f4").tobytes()]

    def _layer(self, kind: str, inputs: tuple[str, ...], parameters: str) -> str:
        output = f"{kind.lower()}{len(self._layers)}"
        self._layers.append(_Layer(kind, inputs, output, parameters))
        return output


def _line(kind: str, inputs: list[str], outputs: list[str], parameters: str = "") -> str:
    name = f"make_{outputs[0]}"
    words = [kind, name, str(len(inputs)), str(len(outputs)), *inputs, *outputs, parameters]
    return " ".join(words).rstrip()


@contextmanager
def _file_of(data: bytes) -> Iterator[str]:
    """Yield a path from which ncnn can read `data`.

    ncnn copies weights only when it reads a file; weights in memory it would reference. On Linux
    the file lies in memory, so that a read-only container is sufficient.
    """
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("student")
        with os.fdopen(file, "wb") as stream:
            stream.write(data)
            stream.flush()
            yield f"/proc/self/fd/{file}"
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student.bin"
        path.write_bytes(data)
        yield str(path)
