"""What methods are measured on: the test subjects of the development data, or anybody's folder."""

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

SMALLEST = 48  # pixels: below it neither noise nor structure can be measured
DEVELOPMENT = "dev"


class FolderMissingError(SettingsError):
    """A folder that the command needs is not there."""

    reason = "folder-missing"


class NoImagesError(NothingToDoError):
    """The folder holds no image that a method can be measured on."""

    reason = "no-images"


@dataclass(frozen=True)
class Subject:
    """Slices of one series on [0, 1], taken as the truth.

    Attributes:
        name: of the series.
        person: whose it is: slices and series of one person are not independent of each other.
        domain: `mr`, `xray`, `ct`, or `folder` where nothing is known.
        slices: float32.
        own_sigma: of the noise that the truth itself holds, where it was measured.
    """

    name: str
    person: str
    domain: str
    slices: Series
    own_sigma: float | None = None


def has_development_data(data: Path) -> bool:
    """Whether the folder is the project's development data."""
    return (data / DEVELOPMENT / "arrays").is_dir()


def read_subjects(data: Path, slices: int, crop: int | None, decoder: Decoder) -> list[Subject]:
    """Evenly chosen slices of every subject.

    Args:
        data: the development data (its test subjects are taken), or a folder of images.
        slices: at most so many of each series.
        crop: the middle of each slice, at most so many pixels wide and high; None: whole slices.
        decoder: for a folder with DICOM files.

    Raises:
        FolderMissingError: if there is no such folder.
        NoImagesError: if nothing in it can be used.
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


def _test_subjects(data: Path) -> Iterator[Subject]:
    """Each radiograph is a person of its own."""
    for item, slices in subjects(data, "test"):
        name = f"{item.name} {item.array}".strip()
        planes = torch.from_numpy(slices)
        if item.domain != "xray":
            yield Subject(name, item.name, item.domain, planes)
            continue
        for number, plane in enumerate(planes):
            yield Subject(f"{name} {number}", f"{name} {number}", item.domain, plane[None])


def _folder(data: Path, decoder: Decoder) -> Iterator[Subject]:
    """Any folder of images; its series are counted: names of files may say who somebody is."""
    folder = read_noisy_folder(data, decoder, SelectionRules())
    people: dict[str, int] = {}
    for number, series in enumerate(folder.series, start=1):
        person = people.setdefault(series.source.subject, len(people) + 1)
        planes = [image.pixels for image in series.images]
        slices = torch.stack([plane for plane in planes if plane.shape == planes[0].shape])
        own = series.profile.sigma
        yield Subject(f"series {number}", f"subject {person}", "folder", slices, own)


def middle_of(subject: Subject, side: int) -> Subject:
    """The middle of the middle slice, at most `side` pixels wide and high."""
    number = len(subject.slices) // 2
    return replace(subject, slices=_cropped(subject.slices[number : number + 1], side))


def _chosen(slices: Series, count: int, crop: int | None) -> Series:
    chosen = slices[:: max(1, len(slices) // count)][:count]
    return chosen if crop is None else _cropped(chosen, crop)


def _cropped(slices: Series, side: int) -> Series:
    height, width = slices.shape[-2:]
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    return slices[:, top : top + side, left : left + side].contiguous()
