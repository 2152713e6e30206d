"""Reads a folder with one DICOM series; each radiograph is a `Volume` of its own."""

from __future__ import annotations

from pathlib import Path

from stillscan.deploy.monailabel.errors import NotChosenError
from stillscan.operators.errors import NothingToDoError, input_error
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import find_series, read_series
from stillscan.operators.reading.selection import SelectionRules
from stillscan.operators.volume import Volume


class NoSeriesError(NothingToDoError):
    """The folder contains no series of images, or more than one."""

    reason = "no-series"


def read_volumes(folder: Path, decoder: Decoder, rules: SelectionRules) -> list[Volume]:
    """Read the only series of a folder: one volume, or one for each of its radiographs.

    Raises:
        NoSeriesError: if there is none, or more than one.
        NotChosenError: if the selection rules exclude it.
        InputError: if the series, or one of its files, is refused.
    """
    catalogue = find_series(folder, decoder, rules)
    if catalogue.refused:  # a refused file may belong to the series: no result with fewer slices
        refusal = catalogue.refused[0]
        if refusal.by_rules:
            raise NotChosenError(f"{refusal.reason}: {refusal.message}")
        raise input_error(refusal.reason, refusal.message)
    if not catalogue.candidates:
        raise NoSeriesError("found no DICOM image")
    series = {each.series_instance_uid for each in catalogue.candidates}
    if len(series) > 1:
        raise NoSeriesError(f"found {len(series)} series, expected one")
    volumes = [read_series(each, decoder) for each in catalogue.candidates]
    return sorted(volumes, key=lambda each: each.slices[0].instance_number or 0)
