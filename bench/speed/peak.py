"""Peak of a core of this machine: the rate of its fastest 3x3 convolution."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import nn

from stillscan.models.engines.engine import DTYPES, Precision
from stillscan.models.networks.precision import computes_bfloat16
from stillscan.models.networks.quantization import SIGNED
from stillscan.models.networks.student import StudentNetwork

SHAPES = ((48, 256), (96, 128), (192, 64), (256, 64))  # channels, height and width
LAYERS = 4  # in sequence, so that input and output cost little
RUNS = 5


def precisions() -> tuple[Precision, ...]:
    """Return float32, bfloat16 if the hardware has it, and int8."""
    return ("float32", "bfloat16", "int8") if computes_bfloat16("cpu") else ("float32", "int8")


@torch.inference_mode()
def peak_gflops(precision: Precision) -> float:
    """Measure GFLOP/s of one thread (multiply and add count as two), the best of some shapes."""
    make = _int8_layers if precision == "int8" else partial(_torch_layers, DTYPES[precision])
    rates = []
    for channels, size in SHAPES:
        work = LAYERS * 2 * 9 * channels**2 * size**2
        rates.append(work / least_core_seconds(make(channels, size), RUNS) / 1e9)
    return max(rates)


def _torch_layers(dtype: torch.dtype, channels: int, size: int) -> Callable[[], object]:
    layers = nn.Sequential(
        *(nn.Conv2d(channels, channels, 3, padding=1, dtype=dtype) for _ in range(LAYERS))
    ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.randn(1, channels, size, size, dtype=dtype)
    image = image.contiguous(memory_format=torch.channels_last)
    return lambda: layers(image)


def _int8_layers(channels: int, size: int) -> Callable[[], object]:
    """Build a network for OpenVINO in which each layer's results are rounded for the next."""
    import openvino
    from openvino import opset13

    def rounded(x: object, step: float, lowest: int, highest: int) -> object:
        ends = [opset13.constant(np.float32(step * each)) for each in (lowest, highest)] * 2
        return opset13.fake_quantize(x, *ends, highest - lowest + 1)

    shape = [1, channels, size, size]
    image = x = opset13.parameter(shape, np.float32)
    generator = np.random.default_rng(0)
    for _ in range(LAYERS):
        weight = generator.normal(size=(channels, channels, 3, 3), scale=0.1).astype(np.float32)
        weights = rounded(opset13.constant(weight), 0.01, -127, 127)
        x = opset13.convolution(rounded(x, 0.03, *SIGNED), weights, *[[1, 1]] * 4)
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    model = openvino.Model([x], [image], "peak")
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    values = generator.normal(size=shape).astype(np.float32)
    return lambda: request.infer([values])


def student_gflop(network: StudentNetwork, pixels: int) -> float:
    """Return the operations of a student's convolutions for an image, in 10^9."""
    per_pixel = 0.0
    for name, layer in network.named_modules():
        if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            continue
        level = _level(name, len(network.widths))
        outputs = 0.25 / 4**level  # per pixel of the image
        weights = layer.weight.numel()
        if isinstance(layer, nn.ConvTranspose2d):  # each input makes a square of outputs
            outputs /= 4
        per_pixel += 2 * weights * outputs
    return per_pixel * pixels / 1e9


def _level(name: str, levels: int) -> int:
    """Return how often the half-resolution plane was halved at the output of this layer."""
    parts = name.split(".")
    if "middle" in parts:
        return levels - 1
    if "downs" in parts:
        return int(parts[parts.index("downs") + 1]) + 1
    for kind in ("encoders", "decoders", "ups"):
        if kind in parts:
            return int(parts[parts.index(kind) + 1])
    return 0


def least_core_seconds(work: Callable[[], object], runs: int = RUNS) -> float:
    """Return the processor time of all threads, the least of some runs."""
    work()  # warm
    return min(_core_seconds(work) for _ in range(runs))


def _core_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
