"""DICOM for the functions of the package: series on disk or in memory, derived data sets back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from stillscan.operators.mosaic import Mosaic
from stillscan.operators.report.outcome import Progress, SeriesOutcome, Watch

if TYPE_CHECKING:  # it imports torch
    from stillscan.operators.denoising.denoise_series import DenoisedBlock


@dataclass
class _Maps:
    """The maps of one instance: of its frames, in the order of the file."""

    sigma: dict[int, np.ndarray] = field(default_factory=dict)
    spread: dict[int, np.ndarray] = field(default_factory=dict)
    mosaic: Mosaic | None = None


class MapsOfSeries:
    """Keeps the noise and uncertainty maps of series while they are denoised; a `Watch`."""

    def __init__(self, watch: Watch) -> None:
        """Pass what is seen on to `watch`."""
        self._watch = watch
        self._of: dict[str, dict[str, _Maps]] = defaultdict(lambda: defaultdict(_Maps))

    def __call__(self, progress: Progress) -> None:
        """Keep the maps of a block."""
        if progress.denoised is not None:
            self._keep(progress.series_instance_uid, progress.denoised)
        self._watch(progress)

    def of(self, uid: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return sigma and uncertainty of a source series or image: an array for each instance."""
        instances = self._of[uid].values()
        return [_frames(each.sigma, each.mosaic) for each in instances], [
            _frames(each.spread, each.mosaic) for each in instances if each.spread
        ]

    def _keep(self, uid: str, denoised: DenoisedBlock) -> None:
        block = denoised.block
        for index, header in enumerate(block.volume.slices[block.start : block.stop]):
            maps = self._of[uid][header.sop_instance_uid]
            maps.mosaic = block.volume.mosaic
            if denoised.sigma is not None:
                maps.sigma[header.frame] = denoised.sigma[index]
            if denoised.spread is not None:
                maps.spread[header.frame] = denoised.spread[index]


def _frames(planes: dict[int, np.ndarray], mosaic: Mosaic | None) -> np.ndarray:
    in_file = [planes[frame] for frame in sorted(planes)]
    stack = np.stack([mosaic.join(in_file)] if mosaic else in_file)
    return stack[0] if len(stack) == 1 else stack


def write_datasets(datasets: Sequence[Dataset], folder: Path) -> None:
    """Write data sets of memory into files, so that they are read as every other input is."""
    for number, dataset in enumerate(datasets):
        written = Dataset()
        written.update(dataset)
        meta = getattr(dataset, "file_meta", None)
        written.file_meta = FileMetaDataset()
        syntax = getattr(meta, "TransferSyntaxUID", None) or ExplicitVRLittleEndian
        written.file_meta.TransferSyntaxUID = syntax
        dcmwrite(folder / f"{number:06d}.dcm", written, enforce_file_format=True)


def read_derived(outcome: SeriesOutcome, folder: Path) -> list[Dataset]:
    """Return the instances of a derived series that was written into `folder`."""
    assert outcome.derived is not None, "only of a derived series"
    place = folder / outcome.derived.series_instance_uid
    uids = dict.fromkeys(outcome.derived.sop_instance_uids)
    return [dcmread(place / f"{uid}.dcm") for uid in uids]
