"""Images for anomaly models: on one grid, with subject, label and scanner of each."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stillscan.app.datasets.errors import NoTrainingImagesError, TooFewImagesError
from stillscan.app.datasets.noisy_files import find_file_series, is_known_file
from stillscan.app.datasets.noisy_folder import find_sources
from stillscan.app.datasets.noisy_series import SeriesSource, require_finite
from stillscan.models.metrics.segmentation import auroc, components
from stillscan.operators.anomaly.input_contract import InputContract, orientation_of
from stillscan.operators.dicom.attributes import text_of
from stillscan.operators.errors import InputError, SettingsError
from stillscan.operators.geometry import NOWHERE, Plane
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.input_files import input_files
from stillscan.operators.reading.selection import SelectionRules
from stillscan.operators.volume import Volume

SIZE_STEP, SMALLEST, LARGEST = 16, 32, 256  # pixels of the grid
LOOK_ALIKE = 0.7 / 16  # root mean square difference of images of 16 x 16 of one head
FOLLOWS = 0.9  # AUROC above which labels follow the scanner
FEWEST_GROUPS = 8
HELD_OUT = 0.1  # share of the subjects for validation, and again for the test


class LabelsFollowScannerError(InputError):
    """The class can be told from the scanner: a classifier would learn scanners."""

    reason = "labels-follow-the-scanner"


@dataclass(frozen=True)
class AnomalyImages:
    """Images of one grid.

    Attributes:
        images: intensities of the contract.
        subjects: of each image; look-alikes count as one where the files name none.
        diseased: the label of each image; False without labels.
        scanners: manufacturer, station and matrix of each image.
        look_alikes: whether subjects are groups of look-alikes.
    """

    images: Float[Tensor, "image 1 size size"]
    subjects: tuple[str, ...]
    diseased: np.ndarray
    scanners: tuple[str, ...]
    look_alikes: bool = False

    def chosen(self, which: np.ndarray) -> AnomalyImages:
        """Return the images where `which` is True."""
        indices = np.flatnonzero(which)
        return replace(
            self,
            images=self.images[indices],
            subjects=tuple(self.subjects[i] for i in indices),
            diseased=self.diseased[indices],
            scanners=tuple(self.scanners[i] for i in indices),
        )

    @property
    def healthy(self) -> AnomalyImages:
        """Return the images that are not labelled as diseased."""
        return self.chosen(~self.diseased)


def sources_of(
    folder: Path, decoder: Decoder, rules: SelectionRules, modality: str
) -> list[SeriesSource]:
    """Find all series; each picture stands alone, so that it can have a label.

    Raises:
        SettingsError: if the folder does not exist.
        NoTrainingImagesError: if there is none.
    """
    if not folder.exists():
        raise SettingsError(f"folder {folder} does not exist")
    found, _, _ = find_sources(folder, decoder, rules, modality)
    sources = [each for each in found if isinstance(each.origin, Volume)]
    for path in filter(is_known_file, input_files(folder).files):
        sources += find_file_series([path], folder, modality)[0]
    if not sources:
        raise NoTrainingImagesError(f"{folder} contains no images")
    return sources


def contract_of(sources: Sequence[SeriesSource], modality: str) -> InputContract:
    """Return the contract that fits most series: the longest side, the commonest orientation."""
    planes = [_plane(each) for each in sources]
    sides = [max(each.sizes[0]) for each in sources]
    extents = [side * max(plane.spacing_mm) for side, plane in zip(sides, planes, strict=True)]
    steps = int(np.ceil(np.median(sides) / SIZE_STEP))
    size = min(LARGEST, max(SMALLEST, SIZE_STEP * steps))
    named = [orientation_of(plane) for plane in planes]
    window = None
    if modality == "CT":
        sample = np.concatenate(
            [
                _pixels(each, range(0, len(each.sizes), max(1, len(each.sizes) // 8))).ravel()
                for each in sources[:: max(1, len(sources) // 64)]
            ]
        )
        window = tuple(float(each) for each in np.quantile(sample, (0.005, 0.995)))
    parts = {_header(each, "BodyPartExamined").upper() for each in sources} - {""}
    return InputContract(
        modality=modality,
        orientation=max(set(named), key=named.count),
        size=size,
        spacing_mm=float(np.median(extents)) / size,
        window=window,  # type: ignore[arg-type]
        body_parts=tuple(sorted(parts)),
    )


def read_images(
    sources: Sequence[SeriesSource], contract: InputContract, labels: Path | None = None
) -> AnomalyImages:
    """Read every series onto the grid.

    Args:
        sources: of `sources_of`.
        contract: the grid.
        labels: CSV with the columns `file` or `series_instance_uid`, `label` (0 healthy, 1
            diseased) and, if wanted, `subject`. Without it, arrays `label` and `subject` of an npz
            file are used, where there are any.

    Raises:
        SettingsError: if a label is missing or wrong.
        InputError: if an image cannot be read.
    """
    rows = {} if labels is None else _labels(labels)
    images, subjects, diseased, scanners = [], [], [], []
    for source in sources:
        count = len(source.sizes)
        pixels = _pixels(source, range(count))
        images.append(contract.to_model(pixels, _plane(source), contract.window_of(pixels)))
        subject, label = _said(source, rows, count, required=labels is not None)
        subjects += subject
        diseased += label
        made = (_header(source, name) for name in ("Manufacturer", "StationName"))
        scanners += ["|".join([*made, str(source.sizes[0])])] * count
    found = AnomalyImages(
        torch.cat(images), tuple(subjects), np.array(diseased, bool), tuple(scanners)
    )
    if len(set(found.subjects)) > 1:
        return found
    groups = look_alike_groups(found.images)
    return replace(found, subjects=tuple(map(str, groups)), look_alikes=True)


def look_alike_groups(images: Float[Tensor, "image 1 size size"]) -> np.ndarray:
    """Number groups of images that are joined by chains of look-alikes."""
    small = torch.nn.functional.adaptive_avg_pool2d(images, 16).flatten(1)
    first, second = [], []
    for start in range(0, len(small), 1024):
        near = torch.cdist(small[start : start + 1024], small) < LOOK_ALIKE * 16
        one, other = near.nonzero().T.numpy()
        first.append(one + start)
        second.append(other)
    return components(len(small), np.concatenate(first), np.concatenate(second))


def split(images: AnomalyImages, seed: int) -> tuple[AnomalyImages, AnomalyImages, AnomalyImages]:
    """Split by subject into training, validation and test images.

    Raises:
        TooFewImagesError: if there are too few subjects, or groups of look-alikes.
    """
    found = np.array(images.subjects)
    names, place = np.unique(found, return_inverse=True)
    if len(names) < FEWEST_GROUPS:
        raise TooFewImagesError(f"found {len(names)} subjects, expected at least {FEWEST_GROUPS}")
    counts, ill = np.bincount(place), np.bincount(place, images.diseased) > 0
    order = np.random.default_rng(seed).permutation(len(names))
    part = np.zeros(len(names), int)
    for which in (False, True):  # healthy and diseased subjects alike
        wanted, taken = HELD_OUT * counts[ill == which].sum(), [0, 0]
        for index in order[ill[order] == which]:
            into = 1 if taken[0] < wanted else 2 if taken[1] < wanted else 0
            if into and counts[index] <= max(2 * wanted, 1):
                part[index] = into
                taken[into - 1] += counts[index]
    where = part[place]
    training, validation, test = (images.chosen(where == n) for n in range(3))
    if min(len(set(validation.healthy.subjects)), len(set(test.healthy.subjects))) < 2:
        raise TooFewImagesError("fewer than two healthy subjects for validation or for the test")
    return training, validation, test


def require_labels_apart_from_scanners(images: AnomalyImages) -> None:
    """Refuse labels that can be told from the scanner.

    Each image's score is the share of diseased ones among the *other* images of its scanner.

    Raises:
        LabelsFollowScannerError: if that separates the classes.
        TooFewImagesError: if there is one class only.
    """
    diseased = images.diseased
    if diseased.all() or not diseased.any():
        raise TooFewImagesError("the labels name one class only, expected 0 and 1")
    _, scanner = np.unique(np.array(images.scanners), return_inverse=True)
    count, ill = np.bincount(scanner), np.bincount(scanner, diseased)
    others = count[scanner] - 1
    share = np.where(others > 0, (ill[scanner] - diseased) / np.maximum(others, 1), diseased.mean())
    found = auroc(share[~diseased], share[diseased])
    if found > FOLLOWS:
        raise LabelsFollowScannerError(
            f"manufacturer, station and matrix tell the class with an AUROC of {found:.2f}, "
            f"expected at most {FOLLOWS}: a classifier would learn the scanner"
        )


def _labels(path: Path) -> dict[str, dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise SettingsError(f"--labels {path} cannot be read: {error.strerror}") from error
    key = next((k for k in ("file", "series_instance_uid") if rows and k in rows[0]), None)
    if key is None or any(row.get("label") not in ("0", "1") for row in rows):
        raise SettingsError(
            f"--labels {path}: expected the columns file or series_instance_uid, and label, which "
            "is 0 (healthy) or 1 (diseased)"
        )
    return {row[key]: row for row in rows}


def _said(
    source: SeriesSource, rows: Mapping[str, dict[str, str]], count: int, *, required: bool
) -> tuple[list[str], list[bool]]:
    """Return subject and label of each slice."""
    if required:
        uid = source.origin.series_instance_uid if isinstance(source.origin, Volume) else ""
        row = rows.get(source.name) or rows.get(source.name.partition("[")[0]) or rows.get(uid)
        if row is None:
            raise SettingsError(f"--labels has no row for {source.name}")
        return [row.get("subject") or source.subject] * count, [row["label"] == "1"] * count
    subjects, labels = [source.subject] * count, [False] * count
    if isinstance(source.origin, Path) and source.origin.suffix == ".npz":
        with np.load(source.origin) as arrays:
            given = {k: arrays[k] for k in ("subject", "label") if k in arrays}
        if len(given.get("subject", ())) == count:
            subjects = [str(each) for each in given["subject"]]
        if len(given.get("label", ())) == count:
            labels = [bool(each) for each in given["label"]]
    return subjects, labels


def _pixels(source: SeriesSource, indices: Sequence[int]) -> np.ndarray:
    slices = []
    for index, (pixels, _) in zip(indices, source.read(indices), strict=True):
        require_finite(pixels, index)
        slices.append(pixels.astype(np.float32))
    return np.stack(slices)


def _plane(source: SeriesSource) -> Plane:
    return source.origin.slices[0].plane if isinstance(source.origin, Volume) else NOWHERE


def _header(source: SeriesSource, keyword: str) -> str:
    if not isinstance(source.origin, Volume):
        return ""
    (header,), _ = source.origin.reader.read(source.origin.slices[:1])
    return text_of(header, keyword).strip()
