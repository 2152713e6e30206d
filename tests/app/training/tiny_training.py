"""A training run small enough for a test: the smallest networks, a few updates.

`python -m tests.app.training.tiny_training DATA OUT [--resume]` runs it in a process of its own.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from stillscan.app.training.command import train_bundle
from stillscan.app.training.profiles import TrainingProfile
from stillscan.app.training.request import TrainingRequest
from stillscan.models.training.stages import StagePlan
from stillscan.operators.errors import ExitCode
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.selection import SelectionRules

PLAN = StagePlan(6, batch=2, patch=32)
TINY = TrainingProfile(
    blind_spot=PLAN,
    diffusion=PLAN,
    one_step=PLAN,
    student=PLAN,
    blind_spot_width=4,
    blind_spot_blocks=1,
    widths=(4, 8),
    student_widths=(4, 8),
    steps=2,
    judged=2,
    judged_side=32,
    checkpoint_every=2,
)


def noisy_stack(slices: int = 5, side: int = 128, seed: int = 0) -> np.ndarray:
    """Discs with white noise: [slice, row, column], about 0 .. 1000."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    clean = 300 + 600 * (np.hypot(x, y) < 0.3)
    return (clean + 25 * rng.standard_normal((slices, side, side))).astype(np.float32)


def request_for(data: Path, out: Path, **changes: object) -> TrainingRequest:
    """A tiny run on the CPU for MR."""
    request = TrainingRequest(
        data, out, "tiny", TINY, SelectionRules(), modalities=("MR",), device="cpu"
    )
    return replace(request, **changes)  # type: ignore[arg-type]


def train_tiny(request: TrainingRequest, console: Console | None = None) -> ExitCode:
    with Decoder() as decoder:
        return train_bundle(request, decoder, console or Console(quiet=True))


if __name__ == "__main__":
    data, out, *more = sys.argv[1:]
    train_tiny(request_for(Path(data), Path(out), resume="--resume" in more), Console())
