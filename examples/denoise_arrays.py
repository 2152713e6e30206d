"""Denoise series without writing DICOM: pixels after, noise and error as arrays.

python examples/denoise_arrays.py IN OUT

OUT gets one .npz per series, arrays [slice, row, column]: `after` (stored values), and in modality
units `noise` and `error`, the standard deviations of the source's noise and of the result's error.
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

import numpy as np

import stillscan


def main(source: Path, output: Path) -> None:
    """Denoise the series of `source`, each with the shipped bundle for its modality."""
    output.mkdir(parents=True, exist_ok=True)
    result = stillscan.denoise(source)
    for outcome in result.outcomes:
        print(f"{outcome.modality}, {outcome.slices} slices: {outcome.status} {outcome.reason}")
    instances = zip(result.image, result.noise, result.uncertainty, strict=True)
    for uid, series in groupby(instances, key=lambda each: each[0].SeriesInstanceUID):
        images, noise, error = zip(*series, strict=True)
        after = np.stack([each.pixel_array for each in images])
        np.savez(output / f"{uid}.npz", after=after, noise=np.stack(noise), error=np.stack(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
