"""Which engine and which precision: what is asked for, or what this machine is good at."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

from torch import nn

from stillscan.models.engines.engine import Engine, EngineError, EngineName, Precision, TorchEngine
from stillscan.models.networks.precision import computes_bfloat16

if TYPE_CHECKING:
    from stillscan.models.engines.engine import WantedEngine

log = logging.getLogger("stillscan")


def choose_engine(
    network: nn.Module,
    wanted: WantedEngine = "auto",
    device: str = "cpu",
    precision: str = "auto",
    *,
    large: bool = False,
) -> Engine:
    """The engine for a student.

    `auto` goes by what is there, not by the clock: the same machine always takes the same, so that
    a repeat gives the same pixels. See `preferred_engines`.

    Args:
        network: with its weights.
        wanted: the name of an engine, or "auto".
        device: torch device; a GPU has torch and tensorrt alone.
        precision: "float32", "bfloat16", "int8" (of a network that learned it), or "auto":
            bfloat16 where the hardware computes it.
        large: the images are radiographs.

    Raises:
        EngineError: if the engine that is asked for is not there, or lacks the precision.
    """
    if wanted != "auto":
        return _engine(network, wanted, device, precision)
    for name in preferred_engines(device, precision, large=large):
        try:
            return _engine(network, name, device, precision)
        except (EngineError, RuntimeError) as error:  # openvino raises nothing more precise
            log.warning("engine %s does not start, another computes: %s", name, error)
    return _engine(network, "torch", device, precision)


def preferred_engines(device: str, precision: str, *, large: bool = False) -> list[EngineName]:
    """What `auto` tries before torch, the best first: of those that are installed.

    On a CPU in float32 ncnn, by a quarter faster than the others, but not for large images: in
    tiles that cost no more than torch's, ncnn takes 1 GB more memory, OpenVINO half of that. In
    bfloat16, which ncnn does not multiply, and in int8 OpenVINO.
    """
    if device != "cpu":
        return []
    exact = precision == "float32" or (precision == "auto" and not computes_bfloat16(device))
    names: tuple[EngineName, ...] = ("openvino",)
    if exact:
        names = () if large else ("ncnn", "openvino")
    return [name for name in names if find_spec(name)]


def prefers_int8(wanted: WantedEngine, device: str, precision: str) -> bool:
    """Whether this machine is at its best with a network that computes in int8.

    On a CPU without bfloat16, where OpenVINO is, int8 takes two thirds of the fast student's time.
    """
    there = wanted in ("auto", "openvino") and find_spec("openvino") is not None
    exact = precision != "auto" or computes_bfloat16(device)
    return there and device == "cpu" and not exact


def _engine(network: nn.Module, name: EngineName, device: str, precision: str) -> Engine:
    on_gpu = device != "cpu"
    if precision == "int8" and name != "openvino":
        raise EngineError(f"engine {name} has no int8; engine openvino has it, on a CPU")
    if on_gpu and name not in ("torch", "tensorrt"):
        raise EngineError(f"engine {name} computes on a CPU alone; device is {device}")
    if not on_gpu and name == "tensorrt":
        raise EngineError("engine tensorrt computes on a GPU alone; device is cpu")
    best: Precision = "bfloat16" if computes_bfloat16(device) else "float32"
    if name == "ncnn":
        from stillscan.models.engines.ncnn_engine import NcnnEngine

        return NcnnEngine(network, _chosen(precision, "float32"))
    if name == "onnxruntime":
        from stillscan.models.engines.onnxruntime_engine import OnnxRuntimeEngine

        return OnnxRuntimeEngine(network, _chosen(precision, "float32"))
    if name == "tensorrt":
        from stillscan.models.engines.onnxruntime_engine import TensorRtEngine

        return TensorRtEngine(network, device, _chosen(precision, best))
    if name == "openvino":
        from stillscan.models.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(network, _chosen(precision, best))
    return TorchEngine(network, device, _chosen(precision, best))


def _chosen(precision: str, best: Precision) -> Precision:
    return best if precision == "auto" else cast(Precision, precision)
