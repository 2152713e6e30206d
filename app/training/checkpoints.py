"""Files of a run, written so that an interruption leaves the old or the new file."""

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
    """Save a checkpoint; an interruption leaves the old checkpoint or the new one.

    Raises:
        OutputError: if it cannot be written.
    """
    write_whole(path, lambda file: torch.save(training.state_dict(), file))


def load_checkpoint(training: Training, path: Path) -> None:
    """Load the state that was saved; do nothing if there is no checkpoint."""
    if path.exists():
        training.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))


def save_json(content: object, path: Path) -> None:
    """Save a value as JSON, to be read by `load_json`.

    Raises:
        OutputError: if it cannot be written.
    """
    text = json.dumps(content, indent=1) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))


def load_json(path: Path) -> Any:
    """Load a value that `save_json` saved."""
    return json.loads(path.read_text(encoding="utf-8"))


def save_array(array: np.ndarray, path: Path) -> None:
    """Save one array, to be read by `numpy.load`.

    Raises:
        OutputError: if it cannot be written.
    """
    write_whole(path, lambda file: np.save(file, array))


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a whole file or nothing.

    Raises:
        OutputError: if it cannot be written.
    """
    with naming_output_faults(f"write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + ".unfinished")
        write_synced(unfinished, write)
        unfinished.replace(path)
