"""Choice of the inference backend and its precision, by request or by what this machine has."""

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
    """Create the inference backend for a student.

    `auto` depends on what is installed and on the processor, never on measured times: the same
    machine always chooses the same backend, so that a repeat gives the same pixels. See
    `preferred_engines`.

    Args:
        network: the student with its weights.
        wanted: the name of an engine, or "auto".
        device: torch device; on a GPU only torch is available.
        precision: "float32", "bfloat16", "int8" (for a network that was trained for it), or "auto":
            bfloat16 where the hardware computes it.
        large: whether the images are large (radiographs), so that memory decides.

    Raises:
        EngineError: if the requested engine is not installed or lacks the precision.
    """
    if wanted != "auto":
        return _engine(network, wanted, device, precision)
    for name in preferred_engines(device, precision, large=large):
        try:
            return _engine(network, name, device, precision)
        except (EngineError, RuntimeError) as error:  # openvino raises nothing more precise
            log.warning("engine %s does not start, trying the next one: %s", name, error)
    return _engine(network, "torch", device, precision)


def preferred_engines(device: str, precision: str, *, large: bool = False) -> list[EngineName]:
    """List the installed engines that `auto` tries before torch, the best first.

    On a CPU, float32: ncnn, which is a quarter faster than the others, but not for large images:
    with tiles as cheap as torch's, ncnn takes 1 GB more memory and OpenVINO half of that.
    bfloat16 (which ncnn does not compute) and int8: OpenVINO.
    """
    if device != "cpu":
        return []
    exact = precision == "float32" or (precision == "auto" and not computes_bfloat16(device))
    names: tuple[EngineName, ...] = ("openvino",)
    if exact:
        names = () if large else ("ncnn", "openvino")
    return [name for name in names if find_spec(name)]


def prefers_int8(wanted: WantedEngine, device: str, precision: str) -> bool:
    """Return whether an int8 network is the fastest choice on this machine.

    On a CPU without bfloat16 but with OpenVINO, int8 takes two thirds of the fast student's time.
    """
    there = wanted in ("auto", "openvino") and find_spec("openvino") is not None
    exact = precision != "auto" or computes_bfloat16(device)
    return there and device == "cpu" and not exact


def _engine(network: nn.Module, name: EngineName, device: str, precision: str) -> Engine:
    if precision == "int8" and name != "openvino":
        raise EngineError(f"engine {name} has no int8; engine openvino has it, on a CPU")
    if device != "cpu" and name != "torch":
        raise EngineError(f"engine {name} runs on a CPU only; device is {device}")
    best: Precision = "bfloat16" if computes_bfloat16(device) else "float32"
    if name == "ncnn":
        from stillscan.models.engines.ncnn_engine import NcnnEngine

        return NcnnEngine(network, _chosen(precision, "float32"))
    if name == "openvino":
        from stillscan.models.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(network, _chosen(precision, best))
    return TorchEngine(network, device, _chosen(precision, best))


def _chosen(precision: str, best: Precision) -> Precision:
    return best if precision == "auto" else cast(Precision, precision)
