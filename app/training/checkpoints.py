"""Files of a run that survive a kill: written beside, made durable, then renamed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from stillscan.models.training.loop import Training
from stillscan.operators.durable_files import write_synced
from stillscan.operators.output_faults import naming_output_faults


def save_checkpoint(training: Training, path: Path) -> None:
    """A kill at any moment leaves the old checkpoint or the new one.

    Raises:
        OutputError: if it cannot be written.
    """
    write_whole(path, lambda file: torch.save(training.state_dict(), file))


def load_checkpoint(training: Training, path: Path) -> None:
    """Go on where the checkpoint was saved; nothing where there is none."""
    if path.exists():
        training.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))


def save_json(content: object, path: Path) -> None:
    """Save what `load_json` gives back.

    Raises:
        OutputError: if it cannot be written.
    """
    text = json.dumps(content, indent=1) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))


def load_json(path: Path) -> Any:
    """Return what `save_json` saved."""
    return json.loads(path.read_text(encoding="utf-8"))


def save_array(array: np.ndarray, path: Path) -> None:
    """One array, as `numpy.load` reads it.

    Raises:
        OutputError: if it cannot be written.
    """
    write_whole(path, lambda file: np.save(file, array))


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """All of a file, or none of it.

    Raises:
        OutputError: if it cannot be written.
    """
    with naming_output_faults(f"write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + ".unfinished")
        write_synced(unfinished, write)
        unfinished.replace(path)
