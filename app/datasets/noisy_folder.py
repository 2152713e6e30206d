"""A folder of noisy series for training, in any readable format.

with Decoder() as decoder:
    folder = read_noisy_folder(data, decoder, SelectionRules())
training, held_out = split(folder.series, seed=0)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from stillscan.app.datasets.errors import (
    EverySeriesRefusedError,
    NoTrainingImagesError,
    TooFewImagesError,
)
from stillscan.app.datasets.noisy_files import find_file_series, is_known_file, name_below
from stillscan.app.datasets.noisy_series import (
    NoisySeries,
    Padding,
    Pixels,
    SeriesSource,
    read_noisy_series,
)
from stillscan.models.training.noisy_images import NoisyImage
from stillscan.operators.errors import InputError, SettingsError
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.input_files import input_files
from stillscan.operators.reading.read_series import Candidate, Refusal, find_series, read_series
from stillscan.operators.reading.selection import SelectionRules
from stillscan.operators.volume import Volume

MOST_PIXELS = 2**29  # float32 in memory: 2 GiB
FEWEST_PIXELS = 2**16  # sixteen patches of 64 x 64
FEWEST_SLICES = 2  # one of them is held out
HELD_OUT = 1 / 8  # share of the images; at most twice that
FILES_NAMED = 3


@dataclass(frozen=True)
class NoisyFolder:
    """The series of a folder.

    Attributes:
        series: the series that were read, with their noise profiles.
        refused: series and files that are not used, with the reason.
        other_files: number of files of other formats.
        every: only every n-th slice of each series was read.
    """

    series: tuple[NoisySeries, ...]
    refused: tuple[Refusal, ...]
    other_files: int
    every: int

    @property
    def subjects(self) -> int:
        """Number of different subjects."""
        return len({each.source.subject for each in self.series})

    @property
    def images(self) -> int:
        """Number of slices that were read and kept."""
        return sum(len(each.images) for each in self.series)

    def fingerprint(self) -> str:
        """Return a digest of all pixels and noise profiles, which determine the trained network."""
        digest = hashlib.sha256()
        for series in self.series:
            digest.update(repr((series.profile.sigma, series.profile.sigmas)).encode())
            digest.update(series.profile.acf.tobytes())
            for image in series.images:
                digest.update(image.pixels.numpy().tobytes())
        return digest.hexdigest()


def read_noisy_folder(
    folder: Path,
    decoder: Decoder,
    rules: SelectionRules,
    modality: str = "",
    most_pixels: int = MOST_PIXELS,
) -> NoisyFolder:
    """Read every series under a folder; unusable series are refused and skipped.

    Args:
        folder: folder with DICOM, NIfTI, PNG and npz files; or one such file.
        decoder: decoder for DICOM files.
        rules: selection rules for DICOM series.
        modality: modality of series whose format does not state it; "" if unknown.
        most_pixels: limit for the memory; beyond it every n-th slice of each series is read.

    Raises:
        SettingsError: if the folder does not exist.
        NoTrainingImagesError: if no file in it can be an image.
        EverySeriesRefusedError: if no series can be used.
        TooFewImagesError: if there are too few usable images.
    """
    if not folder.exists():
        raise SettingsError(f"folder {folder} does not exist")
    sources, refused, other_files = find_sources(folder, decoder, rules, modality)
    if not sources and not refused:
        raise NoTrainingImagesError(
            f"{folder} contains no DICOM, NIfTI, PNG or npz file with images "
            f"({other_files} other files)"
        )
    every = max(1, math.ceil(sum(source.pixels for source in sources) / most_pixels))
    series: list[NoisySeries] = []
    for source in sources:
        try:
            series.append(read_noisy_series(source, every))
        except InputError as error:
            refused.append(Refusal(None, (), error.reason, f"{source.name}: {error}"))
    found = NoisyFolder(tuple(series), tuple(refused), other_files, every)
    require_enough(found, folder)
    return found


def require_enough(found: NoisyFolder, folder: Path) -> None:
    """Refuse a folder with too few images for training.

    Raises:
        EverySeriesRefusedError: if no series is left.
        TooFewImagesError: if there are fewer slices or pixels than training needs.
    """
    if not found.series:
        first = "; ".join(f"{each.reason}: {each.message}" for each in found.refused[:FILES_NAMED])
        raise EverySeriesRefusedError(
            f"none of {len(found.refused)} series or files in {folder} can be trained on: {first}"
        )
    pixels = sum(image.pixels.numel() for each in found.series for image in each.images)
    if found.images < FEWEST_SLICES or pixels < FEWEST_PIXELS:
        raise TooFewImagesError(
            f"{folder} holds {found.images} slices with {pixels} pixels, expected at least "
            f"{FEWEST_SLICES} slices and {FEWEST_PIXELS} pixels"
        )


def split(
    series: Sequence[NoisySeries], seed: int
) -> tuple[tuple[NoisyImage, ...], tuple[NoisyImage, ...]]:
    """Split into images for training, and images held out for the choice of the teacher.

    Whole subjects are held out if some have about HELD_OUT of the images; otherwise the last slices
    of every series.
    """
    by_subject: dict[str, list[NoisyImage]] = {}
    for each in series:
        by_subject.setdefault(each.source.subject, []).extend(each.images)
    shares = _shares(by_subject)
    order = torch.randperm(len(shares), generator=torch.Generator().manual_seed(seed)).tolist()
    names = list(shares)
    chosen: list[str] = []
    for name in (names[index] for index in order):
        if sum(shares[each] for each in chosen) >= HELD_OUT:
            break
        if sum(shares[each] for each in (*chosen, name)) <= 2 * HELD_OUT:
            chosen.append(name)
    if chosen and len(chosen) < len(names):
        inside = {subject: images for subject, images in by_subject.items() if subject in chosen}
        outside = {name: images for name, images in by_subject.items() if name not in chosen}
        return _flat(outside.values()), _flat(inside.values())
    training, held_out = [], []
    for each in series:
        count = math.ceil(HELD_OUT * len(each.images)) if len(each.images) > 1 else 0
        training.append(each.images[: len(each.images) - count])
        held_out.append(each.images[len(each.images) - count :])
    images, held = _flat(training), _flat(held_out)
    return (images, held) if held else (images[:-1], images[-1:])


def _flat(groups: Iterable[Sequence[NoisyImage]]) -> tuple[NoisyImage, ...]:
    return tuple(image for group in groups for image in group)


def _shares(by_subject: Mapping[str, Sequence[NoisyImage]]) -> dict[str, float]:
    """Return each subject's share of the images: half counts pixels, half slices."""
    pixels = {
        subject: sum(image.pixels.numel() for image in images)
        for subject, images in by_subject.items()
    }
    all_pixels, all_slices = sum(pixels.values()), sum(map(len, by_subject.values()))
    return {
        subject: (pixels[subject] / all_pixels + len(images) / all_slices) / 2
        for subject, images in by_subject.items()
    }


def find_sources(
    folder: Path, decoder: Decoder, rules: SelectionRules, modality: str = ""
) -> tuple[list[SeriesSource], list[Refusal], int]:
    """Find all series without reading them, the refused ones, and the number of other files.

    The arguments are those of `read_noisy_folder`.
    """
    catalogue = find_series(folder, decoder, rules)
    known = [path for path in input_files(folder).files if is_known_file(path)]
    sources, refused = find_file_series(known, folder, modality)
    refused += [
        Refusal(
            None,
            each.files,
            each.reason,
            f"{name_below(each.files[0].parent, folder)}/{each.message}",
            each.by_rules,
            each.modality,
        )
        for each in catalogue.refused
        if not is_known_file(each.files[0])
    ]
    for candidate in catalogue.candidates:
        try:
            sources.append(_dicom_source(candidate, read_series(candidate, decoder)))
        except InputError as error:
            name = candidate.series_instance_uid
            refused.append(Refusal(name, (), error.reason, f"{name}: {error}"))
    others = [each for each in catalogue.skipped if not is_known_file(each.files[0])]
    return sources, refused, len(others)


def _dicom_source(candidate: Candidate, volume: Volume) -> SeriesSource:
    patient = candidate.instances[0].known.patient  # digests; "" if not in the header
    return SeriesSource(
        name=candidate.sop_instance_uid or candidate.series_instance_uid,
        subject="|".join(patient) if any(patient) else candidate.study_instance_uid,
        modality=candidate.modality,
        sizes=((volume.rows, volume.columns),) * len(volume.slices),
        read=partial(_read_volume, volume),
        origin=volume,
        places=tuple(each.place for each in volume.slices),
    )


def _read_volume(volume: Volume, indices: Sequence[int]) -> Iterator[tuple[Pixels, Padding]]:
    whole = len(indices) == len(volume.slices)
    for block in volume.blocks() if whole else (volume.read(i, i + 1) for i in indices):
        yield from zip(block.pixels, block.padding, strict=True)
