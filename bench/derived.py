"""Reads results of the application: result.json and the pixels of derived series."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from bench.quality import Series
from stillscan.operators.reading.selection import SelectionRules

# so that tests and measurements see every image, whatever a site would leave out
EVERYTHING = SelectionRules(
    min_matrix=1,
    localizers="process",
    complex_images="process",
    maps="process",
    reformatted="process",
    burned_in="process",
    lossy="process",
    denoised="process",
)


def read_result(output: Path) -> dict[str, Any]:
    """Read `result.json` of a run."""
    result: dict[str, Any] = json.loads((output / "report" / "result.json").read_text("utf-8"))
    return result


def derived_folders(output: Path) -> list[Path]:
    """Return the folders of the series that a run derived, in the order of processing."""
    series = read_result(output)["series"]
    return [output / each["derived"]["folder"] for each in series if each["derived"]]


def read_stored(folder: Path) -> Series:
    """Read the stored values of a series, ordered by InstanceNumber."""
    instances = [pydicom.dcmread(path) for path in folder.glob("*.dcm")]
    instances.sort(key=lambda instance: int(instance.InstanceNumber))
    return np.stack([instance.pixel_array.astype(np.float32) for instance in instances])
