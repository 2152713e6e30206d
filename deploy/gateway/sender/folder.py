"""Delivery to a folder: a series appears in one step, in a subfolder named by its UID."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from stillscan.deploy.gateway.sender.errors import DeliveryFailedError
from stillscan.deploy.gateway.settings import Destination
from stillscan.operators.durable_files import sync, write_synced

PART, OLD = ".part", ".old"


def store_in_folder(destination: Destination, files: Sequence[Path]) -> str:
    """Copy files to the folder; arguments, result and errors as in `deliver.deliver`."""
    assert destination.folder is not None, "the settings require a folder"
    try:
        for series in sorted({file.parent for file in files}):
            _store_series(destination.folder, series, [f for f in files if f.parent == series])
    except OSError as error:
        raise DeliveryFailedError(
            "folder-fault", f"cannot write to the folder: {error.strerror}"
        ) from error
    return ""


def _store_series(folder: Path, series: Path, files: Sequence[Path]) -> None:
    target = folder / series.name
    part, old = (folder / f".{series.name}{suffix}" for suffix in (PART, OLD))
    for left_over in (part, old):
        shutil.rmtree(left_over, ignore_errors=True)
    part.mkdir(parents=True)
    for file in files:
        with file.open("rb") as source:
            write_synced(part / file.name, partial(shutil.copyfileobj, source))
    sync(part)
    if target.exists():  # the same UID: the same content, from an earlier attempt
        target.rename(old)
    part.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    sync(folder)
