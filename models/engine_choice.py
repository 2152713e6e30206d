"""Which engine and which precision: what is asked for, or what this machine is good at."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

from torch import nn

from models.engine import Engine, EngineError, Precision, TorchEngine
from models.precision import computes_bfloat16

if TYPE_CHECKING:
    from models.bundle import WantedEngine

log = logging.getLogger("stillscan")


def choose_engine(
    network: nn.Module, wanted: WantedEngine = "auto", device: str = "cpu", precision: str = "auto"
) -> Engine:
    """The engine for a student.

    `auto` is OpenVINO on a CPU where it is installed and starts, else torch. It goes by what is
    there, not by the clock: the same machine always takes the same, so that a repeat gives the
    same pixels.

    Args:
        network: with its weights.
        wanted: "torch", "openvino", "onnxruntime" or "auto".
        device: torch device; a GPU has torch alone.
        precision: "float32", "bfloat16", or "auto": bfloat16 where the hardware computes it.

    Raises:
        EngineError: if the engine that is asked for is not there, or lacks the precision.
    """
    if device != "cpu" and wanted not in ("auto", "torch"):
        raise EngineError(f"engine {wanted} computes on a CPU alone; device is {device}")
    if wanted == "auto":
        wanted = "openvino" if device == "cpu" and find_spec("openvino") else "torch"
        try:
            return _engine(network, wanted, device, precision)
        except (EngineError, RuntimeError) as error:  # openvino raises nothing more precise
            log.warning("engine %s does not start, torch computes: %s", wanted, error)
            wanted = "torch"
    return _engine(network, wanted, device, precision)


def _engine(network: nn.Module, wanted: WantedEngine, device: str, precision: str) -> Engine:
    if wanted == "onnxruntime":
        from models.engine_onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(network, _chosen(precision, "float32"))
    best: Precision = "bfloat16" if computes_bfloat16(device) else "float32"
    if wanted == "openvino":
        from models.engine_openvino import OpenVinoEngine

        return OpenVinoEngine(network, _chosen(precision, best))
    return TorchEngine(network, device, _chosen(precision, best))


def _chosen(precision: str, best: Precision) -> Precision:
    return best if precision == "auto" else cast(Precision, precision)
