"""What a core of this machine can do at most: the rate of its fastest 3x3 convolution."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

from models.engine import DTYPES, Precision
from models.precision import computes_bfloat16
from models.student import StudentNetwork

SHAPES = ((48, 256), (96, 128), (192, 64), (256, 64))  # channels, height and width
RUNS = 5


def precisions() -> tuple[Precision, ...]:
    """Those that this machine multiplies in hardware."""
    return ("float32", "bfloat16") if computes_bfloat16("cpu") else ("float32",)


@torch.inference_mode()
def peak_gflops(precision: Precision) -> float:
    """GFLOP/s of one thread (a product and a sum are two), the best of some shapes."""
    dtype = DTYPES[precision]
    rates = []
    for channels, size in SHAPES:
        layer = nn.Conv2d(channels, channels, 3, padding=1, dtype=dtype)
        layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        image = torch.randn(1, channels, size, size, dtype=dtype)
        image = image.contiguous(memory_format=torch.channels_last)
        work = 2 * 9 * channels**2 * size**2
        rates.append(work / least_core_seconds(lambda: layer(image), RUNS) / 1e9)  # noqa: B023
    return max(rates)


def student_gflop(network: StudentNetwork, pixels: int) -> float:
    """Arithmetic of a student's convolutions for so many pixels, in 10^9 operations."""
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
    """How often the half-resolution plane was halved where this layer writes."""
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
    """Processor time of all threads, the least of some runs: what others do can only add to it."""
    work()  # warm
    return min(_core_seconds(work) for _ in range(runs))


def _core_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
