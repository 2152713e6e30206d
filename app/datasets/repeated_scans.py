"""The repeated scans of the development data: the same object twice, independent noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from jaxtyping import Float32

from stillscan.operators.volume import Place

Slices = Float32[np.ndarray, "slice row column"]

PAIRS = (
    "mr_ge_snr_pair",
    "mr_siemens_aera_snr_pair",
    "mr_siemens_sola_body_snr_pair",
    "mr_siemens_sola_headneck_snr_pair",
)


@dataclass(frozen=True)
class Repeat:
    """Two acquisitions of the same slices, in stored units.

    Attributes:
        name: name of the scan.
        first: the acquisition that methods denoise.
        second: the acquisition with which results are compared.
        volumes: number of volumes in `first`, all with the same slices, one after the other.
    """

    name: str
    first: Slices
    second: Slices
    volumes: int = 1

    @property
    def places(self) -> tuple[Place, ...]:
        """Where each slice of `first` lies: repeated acquisitions share a place."""
        slices = len(self.first) // self.volumes
        return tuple((index % slices,) for index in range(len(self.first)))


def repeats(dev: Path) -> Iterator[Repeat]:
    """Yield every repeated scan of `dev`; the diffusion scan's volumes are its slices."""
    arrays = dev / "arrays"
    dwi = _load(arrays / "repeat_dwi_siemens_trio.npz")
    yield Repeat("diffusion, Trio, b0", dwi[0, 0], dwi[1, 0])
    yield Repeat("diffusion, Trio, b1000", _flat(dwi[0, 1:]), _flat(dwi[1, 1:]), dwi.shape[1] - 1)
    epi = _load(arrays / "repeat_epi_ge_phantom.npz")
    yield Repeat("EPI phantom, MR750", _flat(epi[0::2]), _flat(epi[1::2]), len(epi[0::2]))
    brain = _load(arrays / "repeat_epi_siemens_xa30.npz")
    yield Repeat("EPI brain, XA30", _flat(brain[0::2]), _flat(brain[1::2]), len(brain[0::2]))
    for name in PAIRS:
        yield _pair(name, dev)


def with_structure(first: Slices) -> list[int]:
    """Return slices with more than air: 99th percentile above a tenth of the series' maximum."""
    brightest = float(np.quantile(first, 0.999))
    return [i for i, image in enumerate(first) if np.quantile(image, 0.99) > 0.1 * brightest]


def _load(path: Path) -> np.ndarray:
    with np.load(path) as arrays:
        return np.asarray(arrays["data"], np.float32)


def _flat(volumes: np.ndarray) -> Slices:
    return volumes.reshape(-1, *volumes.shape[-2:])


def _pair(name: str, dev: Path) -> Repeat:
    files = sorted((dev / "dicom" / name).iterdir())
    first, second = (np.asarray(pydicom.dcmread(file).pixel_array, np.float32) for file in files)
    return Repeat(
        name,
        _flat(np.atleast_3d(first).reshape(-1, *first.shape[-2:])),
        _flat(second.reshape(-1, *second.shape[-2:])),
    )
