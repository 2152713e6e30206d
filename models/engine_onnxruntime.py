"""The student on ONNX Runtime: for machines where that is the library at hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models.engine import EngineError, EngineName, Planes, Precision, Seen

OPSET, IR_VERSION = 17, 8
EDGES = ("batch", "channel", "height", "width")


class OnnxRuntimeEngine:
    """One session for all shapes, float32."""

    name: EngineName = "onnxruntime"

    def __init__(self, network: nn.Module, precision: Precision = "float32") -> None:
        """Make the session; its model lives in memory alone.

        Raises:
            EngineError: if the library is not installed or the precision is not float32.
        """
        if precision != "float32":
            raise EngineError(f"engine onnxruntime has no {precision}; it has float32")
        try:
            import onnx
            import onnxruntime
        except ImportError as error:
            raise EngineError("engine onnxruntime is not installed (the extra `speed`)") from error
        self.precision: Precision = precision
        self.device = torch.device("cpu")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # of each caller: slices and tiles are side by side
        model: bytes = _Graph(onnx, network).model().SerializeToString()
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )

    @torch.inference_mode()
    def run(self, seen: Seen) -> tuple[Planes, Planes]:
        """See `models.engine.Engine`."""
        results = self._session.run(None, {"seen": seen.contiguous().numpy()})
        noise, log_variance = (torch.from_numpy(each) for each in results)
        return noise, log_variance


class _Graph:
    """`StudentNetwork.planes`, written in ONNX's operations."""

    def __init__(self, onnx: Any, network: nn.Module) -> None:
        self._onnx = onnx
        weights = network.state_dict().items()
        self._weights = {name: tensor.detach().cpu().float().numpy() for name, tensor in weights}
        self._nodes: list[Any] = []

    def model(self) -> Any:
        """The network for what is seen of any shape."""
        weights = self._weights
        downs = sum(name.startswith("body.downs.") for name in weights) // 2
        middle = sum(name.startswith("body.middle.") for name in weights) // 4
        x = self._convolution("body.enter", "seen")
        skips = []
        for level in range(downs):
            x = self._block(f"body.encoders.{level}", x)
            skips.append(x)
            x = self._convolution(f"body.downs.{level}", x, stride=2)
        for block in range(middle):
            x = self._block(f"body.middle.{block}", x)
        for level in reversed(range(downs)):
            x = self._node("Add", self._up(f"body.ups.{level}", x), skips.pop())
            x = self._block(f"body.decoders.{level}", x)
        noise = self._convolution("noise", x)
        hidden = self._node("Relu", self._convolution("log_variance.0", x))
        log_variance = self._convolution("log_variance.2", hidden)
        return self._finished(noise, log_variance)

    def _finished(self, noise: str, log_variance: str) -> Any:
        helper, kind = self._onnx.helper, self._onnx.TensorProto.FLOAT
        values = [
            helper.make_tensor_value_info(name, kind, EDGES)
            for name in ("seen", noise, log_variance)
        ]
        weights = [self._onnx.numpy_helper.from_array(w, name) for name, w in self._weights.items()]
        graph = helper.make_graph(self._nodes, "student", values[:1], values[1:], weights)
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)

    def _block(self, name: str, x: str) -> str:
        first = self._node("Relu", self._convolution(f"{name}.first", x))
        return self._node("Add", x, self._convolution(f"{name}.second", first))

    def _convolution(self, name: str, x: str, stride: int = 1) -> str:
        reach = 0 if stride > 1 else self._weights[f"{name}.weight"].shape[-1] // 2
        inputs = (x, f"{name}.weight", f"{name}.bias")
        return self._node("Conv", *inputs, strides=[stride] * 2, pads=[reach] * 4)

    def _up(self, name: str, x: str) -> str:
        return self._node("ConvTranspose", x, f"{name}.weight", f"{name}.bias", strides=[2, 2])

    def _node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operation; gives the name of its output."""
        output = f"{kind}_{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, [output], **attributes))
        return output
