"""Assesses a series block by block: scores on its own pixels, likeness, candidate regions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from statistics import median

import numpy as np
from jaxtyping import Float32

from stillscan.models.anomaly.model import AnomalyModel
from stillscan.models.metrics.segmentation import regions
from stillscan.operators.anomaly.input_contract import InputContract, orientation_of
from stillscan.operators.denoising.intensity import without_padding
from stillscan.operators.dicom.attributes import text_of
from stillscan.operators.errors import InputError, NotOneVolumeError
from stillscan.operators.volume import Volume, VolumeBlock
from stillscan.operators.writing.provenance import Provenance

UNLIKE = 3.09  # deviations: the 99.9 % quantile of healthy slices, of a normal law
ALARM = 2.33  # the 99 % quantile
CANDIDATE = 3.0  # score of a candidate region: 1 in 1000 healthy pixels
SMALLEST_MM3 = 30.0
MOST_REGIONS = 50
SAMPLED = 8  # slices by which the intensity of a series is scaled

Scores = Float32[np.ndarray, "slice row column"]


class NoBundleForBodyPartError(InputError):
    """The bundle was trained on another body part or orientation."""

    reason = "no-bundle-for-body-part"


class UnlikeTrainingImagesError(InputError):
    """The images are unlike the training images: a score would mean nothing and is not shown."""

    reason = "unlike-training-images"


@dataclass(frozen=True)
class AnomalyMethod:
    """An anomaly model with the images it is for.

    Attributes:
        facts: of the bundle, for the report: nominal and achieved share, numbers of images.
    """

    model: AnomalyModel
    contract: InputContract
    provenance: Provenance
    facts: dict[str, float]


@dataclass(frozen=True)
class Region:
    """A candidate region: where scores are rare among healthy pixels.

    Attributes:
        number: in the array of regions, from 1, the most unusual first.
        volume_mm3: of its pixels.
        largest, mean: of its scores.
        centre_mm: its centre of mass, LPS.
        slices: indices of its slices.
    """

    number: int
    volume_mm3: float
    largest: float
    mean: float
    centre_mm: tuple[float, float, float]
    slices: tuple[int, ...]


@dataclass
class Assessment:
    """What was found in a series, block by block.

    Attributes:
        likeness: deviations of each slice above healthy slices.
        candidates: scores at CANDIDATE or above, in 3-D; 0 elsewhere.
    """

    volume: Volume
    likeness: list[float] = field(default_factory=list)
    candidates: list[np.ndarray] = field(default_factory=list)

    @property
    def unlikeness(self) -> float:
        """Median over the slices."""
        return median(self.likeness)

    @property
    def alarm(self) -> bool:
        """Whether the series lies above the 99 % quantile of healthy slices."""
        return self.unlikeness > ALARM

    def require_alike(self) -> None:
        """Refuse images of another kind; their score is not told.

        Raises:
            UnlikeTrainingImagesError: if most slices are beyond 99.9 % of healthy ones.
        """
        if self.unlikeness > UNLIKE:
            raise UnlikeTrainingImagesError(
                "most slices are more unlike the training images than 99.9 % of healthy ones: "
                "another body part, contrast or orientation, or a bundle for another scanner"
            )

    def regions(self) -> tuple[np.ndarray, tuple[Region, ...]]:
        """Return the numbered regions, and each of them, the most unusual first."""
        scores = np.concatenate(self.candidates)
        numbers = regions(scores > 0)
        affine = self.volume.affine_lps
        pixel_mm3 = abs(float(np.linalg.det(affine[:3, :3])))
        found = []
        for number in range(1, int(numbers.max()) + 1):
            places = np.stack(np.nonzero(numbers == number))
            values = scores[tuple(places)]
            if len(values) * pixel_mm3 >= SMALLEST_MM3:
                x, y, z = affine[:3, :3] @ places[::-1].mean(1) + affine[:3, 3]
                found.append(
                    Region(
                        number,
                        len(values) * pixel_mm3,
                        float(values.max()),
                        float(values.mean()),
                        (float(x), float(y), float(z)),
                        tuple(int(each) for each in np.unique(places[0])),
                    )
                )
        found.sort(key=lambda region: (-region.largest, -region.volume_mm3))
        kept = found[:MOST_REGIONS]
        places = np.zeros(numbers.max() + 1, np.uint8)
        places[[each.number for each in kept]] = np.arange(1, len(kept) + 1)
        ordered = (replace(each, number=place) for place, each in enumerate(kept, start=1))
        return places[numbers], tuple(ordered)


def require_suitable(volume: Volume, method: AnomalyMethod) -> None:
    """Refuse a series that the bundle is not for, or without one geometry.

    Raises:
        NotOneVolumeError: if slices have no position, or are not parallel and evenly spaced.
        NoBundleForBodyPartError: for another body part or orientation.
    """
    contract = method.contract
    if any(each.plane.position is None for each in volume.slices):
        raise NotOneVolumeError("the images have no position in the patient: a map has no place")
    _ = volume.affine_lps
    found = orientation_of(volume.slices[0].plane)
    if contract.orientation not in ("unknown", found):
        raise NoBundleForBodyPartError(
            f"the slices are {found}, the bundle is for {contract.orientation} slices"
        )
    (header,), _ = volume.reader.read(volume.slices[:1])
    part = text_of(header, "BodyPartExamined").strip().upper()
    if part and contract.body_parts and part not in contract.body_parts:
        raise NoBundleForBodyPartError(
            f"BodyPartExamined is {part}, the bundle is for {', '.join(contract.body_parts)}"
        )


def assess(
    volume: Volume, method: AnomalyMethod, found: Assessment
) -> Iterator[tuple[VolumeBlock, Scores, Scores]]:
    """Yield each block with its scores and the healthy images of the bundle's grid.

    Args:
        volume: a series that `require_suitable` accepts.
        method: the bundle.
        found: filled block by block.

    Raises:
        InputError: if a slice cannot be read.
    """
    contract, plane = method.contract, volume.slices[0].plane
    steps = np.linspace(0, len(volume.slices) - 1, min(SAMPLED, len(volume.slices))).round()
    sample = [_pixels(volume.read(int(i), int(i) + 1)) for i in dict.fromkeys(steps)]
    window = contract.window_of(np.concatenate(sample))
    # the same noise for the same series
    seed = int.from_bytes(sha256(volume.series_instance_uid.encode()).digest()[:4], "big")
    for block in volume.blocks():
        estimate = method.model.assess(contract.to_model(_pixels(block), plane, window), seed)
        scores = contract.to_image(estimate.score, plane, volume.rows, volume.columns)
        found.likeness += estimate.likeness.tolist()
        found.candidates.append(np.where(scores >= CANDIDATE, scores, 0).astype(np.float32))
        low, high = window
        healthy = contract.to_image(estimate.healthy, plane, volume.rows, volume.columns)
        yield block, scores, healthy * np.float32(high - low) + np.float32(low)


def _pixels(block: VolumeBlock) -> Scores:
    return without_padding(block.pixels, block.padding)
