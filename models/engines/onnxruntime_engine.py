"""The student on ONNX Runtime, on a CPU, and with TensorRT on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from stillscan.models.engines.engine import PIECE, EngineError, EngineName, Precision
from stillscan.models.engines.graph import planes_of, weights_of
from stillscan.models.networks.student import Planes, Seen

OPSET, IR_VERSION = 17, 8
SEEN = "seen"
EDGES = ("batch", "channel", "height", "width")


class OnnxRuntimeEngine:
    """Runs one session for all shapes, float32."""

    name: EngineName = "onnxruntime"
    piece = PIECE

    def __init__(self, network: nn.Module, precision: Precision = "float32") -> None:
        """Create the session; its model is not written to a file.

        Raises:
            EngineError: if the library is not installed or the precision is not float32.
        """
        if precision != "float32":
            raise EngineError(f"engine onnxruntime has no {precision}; it has float32")
        self.precision: Precision = precision
        self.device = torch.device("cpu")
        self._session = _session(self.name, network, "CPUExecutionProvider", {})

    @torch.inference_mode()
    def run(self, seen: Seen) -> tuple[Planes, Planes]:
        """See `stillscan.models.engines.engine.Engine`."""
        results = self._session.run(None, {SEEN: seen.contiguous().numpy()})
        noise, log_variance = (torch.from_numpy(each) for each in results)
        return noise, log_variance


class TensorRtEngine:
    """TensorRT through ONNX Runtime, on a GPU; it reads and writes torch's tensors without copies.

    TensorRT builds an engine for every new shape, which takes a while; the session keeps the last
    ones. Not measured on a GPU: the tests run the bindings on a CPU.
    """

    name: EngineName = "tensorrt"
    piece = PIECE

    def __init__(
        self,
        network: nn.Module,
        device: torch.device | str = "cuda",
        precision: Precision = "float32",
        provider: str = "TensorrtExecutionProvider",
    ) -> None:
        """Create the session; only tests use another `provider`.

        Raises:
            EngineError: if the library or its TensorRT is not installed, or lacks the precision.
        """
        if precision not in ("float32", "bfloat16"):
            raise EngineError(f"engine tensorrt has no {precision}; it has float32, bfloat16")
        self.precision: Precision = precision
        self.device = torch.device(device)
        options: dict[str, Any] = {}
        if self.device.type == "cuda":
            options = {"device_id": self.device.index or 0}
            options |= {"trt_bf16_enable": True} if precision == "bfloat16" else {}
        self._session = _session(self.name, network, provider, options)

    @torch.inference_mode()
    def run(self, seen: Seen) -> tuple[Planes, Planes]:
        """See `stillscan.models.engines.engine.Engine`."""
        seen = seen.contiguous()
        planes = [seen.new_empty((len(seen), 4, *seen.shape[-2:])) for _ in range(2)]
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()  # the session has its own stream
        binding = self._session.io_binding()
        place = (self.device.type, self.device.index or 0, np.float32)
        binding.bind_input(SEEN, *place, tuple(seen.shape), seen.data_ptr())
        for output, plane in zip(self._session.get_outputs(), planes, strict=True):
            binding.bind_output(output.name, *place, tuple(plane.shape), plane.data_ptr())
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return planes[0], planes[1]


def _session(name: str, network: nn.Module, provider: str, options: dict[str, Any]) -> Any:
    """Create a session for the student on one provider of ONNX Runtime.

    Raises:
        EngineError: if the library is not installed or lacks the provider.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"engine {name} is not installed (the extra `speed`)") from error
    if provider not in onnxruntime.get_available_providers():
        raise EngineError(f"engine {name} is not installed: onnxruntime here has no {provider}")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1  # for each caller: slices and tiles run in parallel
    model: bytes = _Graph(onnx, network).model().SerializeToString()
    return onnxruntime.InferenceSession(model, settings, providers=[(provider, options)])


class _Graph:
    """The student in ONNX's operations; values are the names of their tensors."""

    def __init__(self, onnx: Any, network: nn.Module) -> None:
        self._onnx = onnx
        self._weights = weights_of(network)
        self._nodes: list[Any] = []

    def model(self) -> Any:
        """Build the network for inputs of any shape."""
        helper, kind = self._onnx.helper, self._onnx.TensorProto.FLOAT
        outputs = planes_of(self._weights, self, SEEN)
        values = [helper.make_tensor_value_info(name, kind, EDGES) for name in (SEEN, *outputs)]
        weights = [self._onnx.numpy_helper.from_array(w, name) for name, w in self._weights.items()]
        graph = helper.make_graph(self._nodes, "student", values[:1], values[1:], weights)
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)

    def convolution(self, name: str, x: str, stride: int = 1, *, relu: bool = False) -> str:
        """See `stillscan.models.engines.graph.Operations`."""
        around = 0 if stride > 1 else self._weights[f"{name}.weight"].shape[-1] // 2
        inputs = (x, f"{name}.weight", f"{name}.bias")
        made = self._node("Conv", *inputs, strides=[stride] * 2, pads=[around] * 4)
        return self._node("Relu", made) if relu else made

    def up(self, name: str, x: str) -> str:
        """See `stillscan.models.engines.graph.Operations`."""
        return self._node("ConvTranspose", x, f"{name}.weight", f"{name}.bias", strides=[2, 2])

    def add(self, x: str, y: str) -> str:
        """See `stillscan.models.engines.graph.Operations`."""
        return self._node("Add", x, y)

    def _node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operation; return the name of its output."""
        output = f"{kind}_{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, [output], **attributes))
        return output
