"""Reads a folder with one DICOM series as a `Volume`."""

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


def read_volume(folder: Path, decoder: Decoder, rules: SelectionRules) -> Volume:
    """Read the only series of a folder.

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
    if len(catalogue.candidates) > 1:
        found = len(catalogue.candidates)
        raise NoSeriesError(f"found {found} series or radiographs, expected one")
    return read_series(catalogue.candidates[0], decoder)
