"""Denoise series without writing DICOM: pixels before and after as arrays.

python examples/denoise_arrays.py IN OUT

OUT gets one .npz per series with `before`, `after` and `error`, the standard deviation of the error
that the network expects at each pixel, all in modality units (HU for CT) as [slice, row, column].
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from stillscan import (
    Decoder,
    StillscanError,
    denoise_volume,
    find_series,
    load_settings,
    read_series,
)
from stillscan.app.bundles.choice import DEFAULT_BUNDLES, available_bundles, bundle_for
from stillscan.models.bundle import load_bundle


def main(source: Path, output: Path) -> None:
    """Denoise the series of `source`, each with the shipped bundle for its modality."""
    output.mkdir(parents=True, exist_ok=True)
    bundles = available_bundles(DEFAULT_BUNDLES, None)
    with Decoder() as decoder:  # files are parsed and decoded in a process with limits
        found = find_series(source, decoder, load_settings().selection)
        for candidate in found.candidates:
            try:
                volume = read_series(candidate, decoder)
                denoiser = load_bundle(bundle_for(volume.modality, bundles).folder).denoiser
                blocks = list(denoise_volume(denoiser, volume))
            except StillscanError as error:
                print(f"{candidate.series_instance_uid}: {error.reason}: {error}")
                continue
            before = np.concatenate([each.block.pixels for each in blocks])
            after = np.concatenate([each.pixels for each in blocks])
            deviation = np.concatenate([each.spread for each in blocks])
            verdicts = ", ".join(sorted({each.verdict.decision for each in blocks}))
            print(
                f"{volume.modality}, {len(before)} slices: noise {blocks[0].noise_before:.3g}, "
                f"changed by {np.std(after - before):.3g} {volume.unit}, gate: {verdicts}"
            )
            file = output / f"{volume.series_instance_uid}.npz"
            np.savez(file, before=before, after=after, error=deviation)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
