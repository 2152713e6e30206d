"""Figures of anomaly maps: the rows of a bundle beside the simple methods."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from stillscan.models.anomaly.baselines import AnomalyMap
from stillscan.models.anomaly.guided import GRADIENT, GUIDED, PUBLISHED, GuidedAnomalyModel
from stillscan.models.anomaly.latent import ROWS, LatentAnomalyModel, Reference
from stillscan.models.anomaly.sprites import SIZES, with_sprites
from stillscan.models.metrics.confidence_intervals import Interval, bootstrap_mean
from stillscan.models.metrics.segmentation import (
    auroc,
    average_precision,
    best_dice,
    dice,
    lesion_sensitivity,
)
from stillscan.operators.output_faults import naming_output_faults

SPRITE_SEED = 20
REFERENCES: tuple[Reference, ...] = ("image", "reconstruction")

Masks = Bool[np.ndarray, "image 1 height width"]


@dataclass(frozen=True)
class Figures:
    """One row of the table for one set of lesions.

    Attributes:
        dice: at the threshold that `nominal` of the healthy validation pixels reach.
        best_dice: at the threshold that is best for these very masks: optimistic.
        average_precision: area below the precision-recall curve of all pixels.
        per_image: mean of the average precision of single images, with its interval by subject.
        sensitivity: share of lesions found with one false region for each image, on average.
        image_auroc: images with lesions against the same number without, by the 99th percentile.
        healthy_share: share of healthy pixels that are marked.
    """

    lesions: str
    row: str
    dice: float
    best_dice: float
    average_precision: float
    per_image: float
    per_image_low: float
    per_image_high: float
    sensitivity: float
    image_auroc: float
    healthy_share: float


@dataclass(frozen=True)
class Measured:
    """The figures of a row, and the average precision of each image for comparisons."""

    figures: Figures
    of_images: np.ndarray


def rows_of(
    model: LatentAnomalyModel, guided: GuidedAnomalyModel | None, simple: Mapping[str, AnomalyMap]
) -> Iterator[tuple[str, AnomalyMap]]:
    """Yield every row of the table: simple methods, latent rows, guided rows."""
    made: dict[tuple[int, Reference], tuple[Tensor, Mapping[str, Tensor]]] = {}

    def latent(row: str, reference: Reference) -> AnomalyMap:
        def make(images: Tensor) -> Tensor:
            key = id(images), reference  # all rows at once; the images are kept with their maps
            if key not in made:
                made[key] = images, model.maps(images, ROWS, 0, reference)
            return made[key][1][row]

        return make

    def by_guidance(name: str) -> AnomalyMap:
        assert guided is not None
        return lambda images: guided.maps(images)[name]

    yield from simple.items()
    for row in ROWS:
        for reference in REFERENCES if row != "KL" else REFERENCES[:1]:
            yield row_name(row, reference), latent(row, reference)
    if guided is not None:
        for name in (GRADIENT, PUBLISHED, GUIDED):
            yield name, by_guidance(name)


def row_name(row: str, reference: Reference) -> str:
    """Return the name of a latent row in tables."""
    return row if row == "KL" or reference == "image" else f"{row}, reconstruction"


def lesions_of(healthy: Tensor) -> Iterator[tuple[str, Tensor, Masks]]:
    """Yield synthetic lesions of each size in healthy images."""
    for number, (name, radius) in enumerate(SIZES.items()):
        images, masks = with_sprites(healthy, radius, SPRITE_SEED + number)
        yield f"{name} sprites", images, masks.numpy()


def measure(
    lesions: str,
    row: str,
    make: AnomalyMap,
    images: Tensor,
    masks: Masks,
    subjects: Sequence[str],
    healthy: Tensor,
    threshold: float,
) -> Measured:
    """Measure one row on images with masks.

    Args:
        lesions: name of the set.
        row: name of the row.
        make: the row.
        images: with lesions.
        masks: of the lesions.
        subjects: of each image.
        healthy: images without lesions.
        threshold: score that the nominal share of healthy validation pixels reaches.
    """
    scores = make(images).numpy()
    quiet = make(healthy).numpy()
    of_images = np.array(
        [average_precision(one, mask) for one, mask in zip(scores, masks, strict=True)]
    )
    interval = interval_of(of_images, subjects)
    top = [np.quantile(each.reshape(len(each), -1), 0.99, 1) for each in (quiet, scores)]
    figures = Figures(
        lesions,
        row,
        dice(scores > threshold, masks),
        best_dice(scores, masks),
        average_precision(scores, masks),
        interval.value,
        interval.low,
        interval.high,
        # the images as one volume, an empty slice between two
        lesion_sensitivity(_apart(scores), _apart(masks), false_regions=len(images)),
        auroc(*top),
        float((quiet > threshold).mean()),
    )
    return Measured(figures, of_images)


def _apart(values: np.ndarray) -> np.ndarray:
    blank = np.full_like(values, values.min())
    return np.stack([values[:, 0], blank[:, 0]], 1).reshape(-1, *values.shape[-2:])


def threshold_of(make: AnomalyMap, healthy: Float[Tensor, "image 1 h w"], nominal: float) -> float:
    """Return the score that the nominal share of healthy pixels reaches."""
    return float(np.quantile(make(healthy).numpy(), 1 - nominal))


def interval_of(values: np.ndarray, subjects: Sequence[str]) -> Interval:
    """Return the mean of values of images with its interval by subject; NaN values are left out."""
    by_subject: dict[str, list[float]] = {}
    for subject, value in zip(subjects, values, strict=True):
        if not math.isnan(value):
            by_subject.setdefault(subject, []).append(float(value))
    return bootstrap_mean(list(by_subject.values())) if by_subject else Interval(*[math.nan] * 3)


def table(figures: Sequence[Figures]) -> str:
    """Return the figures as a table in Markdown."""
    lines = [
        "| lesions | row | Dice at the healthy threshold | best Dice (its own threshold) | "
        "AUPRC | AUPRC of an image (95 % by subject) | lesions found at 1 false region per image | "
        "image AUROC | healthy pixels marked |",
        "|---" * 9 + "|",
    ]
    lines += [
        f"| {f.lesions} | {f.row} | {f.dice:.3f} | {f.best_dice:.3f} | {f.average_precision:.3f} | "
        f"{f.per_image:.3f} ({f.per_image_low:.3f} to {f.per_image_high:.3f}) | "
        f"{f.sensitivity:.2f} | {f.image_auroc:.2f} | {100 * f.healthy_share:.2f} % |"
        for f in figures
    ]
    return "\n".join(lines) + "\n"


def write_tables(folder: Path, figures: Sequence[Figures], notes: Sequence[str]) -> None:
    """Write `anomaly.csv` and `anomaly.md`.

    Raises:
        OutputError: if they cannot be written.
    """
    with naming_output_faults(f"write {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "anomaly.csv").open("w", newline="", encoding="utf-8") as file:
            rows = csv.DictWriter(file, [field.name for field in fields(Figures)])
            rows.writeheader()
            rows.writerows(asdict(each) for each in figures)
        text = "\n".join(["# Anomaly maps", "", *notes, "", table(figures)])
        (folder / "anomaly.md").write_text(text, encoding="utf-8")
