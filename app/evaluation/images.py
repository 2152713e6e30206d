"""Images that methods are measured on: test subjects of the development data, or any folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from stillscan.app.datasets.development_data import subjects
from stillscan.app.datasets.noisy_folder import read_noisy_folder
from stillscan.operators.errors import NothingToDoError, SettingsError
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.selection import SelectionRules

Series = Float[Tensor, "slice height width"]

SMALLEST = 48  # pixels: smaller images show too little noise and structure to be measured
DEVELOPMENT = "dev"


class FolderMissingError(SettingsError):
    """A folder that the command needs does not exist."""

    reason = "folder-missing"


class NoImagesError(NothingToDoError):
    """The folder holds no image on which a method can be measured."""

    reason = "no-images"


@dataclass(frozen=True)
class ReferenceSeries:
    """Slices of one series on [0, 1] that count as the truth.

    Attributes:
        name: name of the series.
        subject: the subject; slices and series of one subject are not independent of each other.
        domain: `mr`, `xray`, `ct`, or `folder` if it is not known.
        slices: float32.
        own_sigma: standard deviation of the noise in the truth itself, if it was measured.
    """

    name: str
    subject: str
    domain: str
    slices: Series
    own_sigma: float | None = None


def has_development_data(data: Path) -> bool:
    """Return whether the folder is the project's development data."""
    return (data / DEVELOPMENT / "arrays").is_dir()


def read_reference_series(
    data: Path, slices: int, crop: int | None, decoder: Decoder
) -> list[ReferenceSeries]:
    """Read evenly chosen slices of every series.

    Args:
        data: the development data (its test subjects are used), or a folder of images.
        slices: maximum number of slices of a series.
        crop: maximum width and height in pixels of the middle of a slice; None: whole slices.
        decoder: decoder for a folder with DICOM files.

    Raises:
        FolderMissingError: if the folder does not exist.
        NoImagesError: if it holds no usable image.
    """
    if not data.is_dir():
        raise FolderMissingError(f"{data} is not a folder")
    source = _test_subjects(data) if has_development_data(data) else _folder(data, decoder)
    found = [
        replace(each, slices=_chosen(each.slices, slices, crop))
        for each in source
        if min(each.slices.shape[-2:]) >= SMALLEST
    ]
    if not found:
        raise NoImagesError(f"{data} holds no image of at least {SMALLEST} x {SMALLEST} pixels")
    return found


def _test_subjects(data: Path) -> Iterator[ReferenceSeries]:
    """Yield the test subjects; each radiograph counts as a subject of its own."""
    for item, slices in subjects(data, "test"):
        name = f"{item.name} {item.array}".strip()
        planes = torch.from_numpy(slices)
        if item.domain != "xray":
            yield ReferenceSeries(name, item.name, item.domain, planes)
            continue
        for number, plane in enumerate(planes):
            yield ReferenceSeries(f"{name} {number}", f"{name} {number}", item.domain, plane[None])


def _folder(data: Path, decoder: Decoder) -> Iterator[ReferenceSeries]:
    """Yield the series of any folder, numbered: names of files may identify a patient."""
    folder = read_noisy_folder(data, decoder, SelectionRules())
    subjects_seen: dict[str, int] = {}
    for number, series in enumerate(folder.series, start=1):
        subject = subjects_seen.setdefault(series.source.subject, len(subjects_seen) + 1)
        planes = [image.pixels for image in series.images]
        slices = torch.stack([plane for plane in planes if plane.shape == planes[0].shape])
        own = series.profile.sigma
        yield ReferenceSeries(f"series {number}", f"subject {subject}", "folder", slices, own)


def middle_of(series: ReferenceSeries, side: int) -> ReferenceSeries:
    """Return the middle of the middle slice, at most `side` pixels wide and high."""
    number = len(series.slices) // 2
    return replace(series, slices=_cropped(series.slices[number : number + 1], side))


def _chosen(slices: Series, count: int, crop: int | None) -> Series:
    chosen = slices[:: max(1, len(slices) // count)][:count]
    return chosen if crop is None else _cropped(chosen, crop)


def _cropped(slices: Series, side: int) -> Series:
    height, width = slices.shape[-2:]
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    return slices[:, top : top + side, left : left + side].contiguous()
