"""`stillscan evaluate DATA --task anomaly`: the rows of a bundle beside the simple methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from torch import Tensor

from stillscan.app.datasets.anomaly_images import AnomalyImages, read_images, sources_of
from stillscan.app.datasets.errors import TooFewImagesError
from stillscan.app.evaluation.anomaly.figures import (
    Figures,
    Masks,
    lesions_of,
    measure,
    rows_of,
    table,
    threshold_of,
    write_tables,
)
from stillscan.models.anomaly.baselines import AnomalyMap, baselines
from stillscan.models.anomaly.bundle import AnomalyBundle, load_anomaly_bundle
from stillscan.models.bundle import BundleError
from stillscan.models.metrics.segmentation import auroc
from stillscan.operators.anomaly.assessing import UNLIKE
from stillscan.operators.anomaly.input_contract import InputContract
from stillscan.operators.errors import ExitCode, ModelError
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.selection import SelectionRules

MASK_ABOVE = 0.5  # share of a pixel of the grid that the mask covers


@dataclass(frozen=True)
class AnomalyPlan:
    """The arguments of an evaluation.

    Attributes:
        data: images with lesions where `masks` are given, else healthy ones (or with labels).
        out: folder of the tables.
        bundle: folder of the bundle.
        masks: the same files as in `data`, 0 outside lesions; None: lesions are put into images.
        healthy: other healthy images, to which the simple methods and all thresholds are fitted.
        rules: for the selection of DICOM series.
    """

    data: Path
    out: Path
    bundle: Path
    masks: Path | None
    healthy: Path
    rules: SelectionRules


def evaluate_anomaly(plan: AnomalyPlan, decoder: Decoder, console: Console) -> ExitCode:
    """Measure all rows and write the tables.

    Raises:
        StillscanError: if images, masks or the bundle are missing or do not fit.
    """
    try:
        bundle = load_anomaly_bundle(plan.bundle)
    except BundleError as error:
        raise ModelError(str(error)) from error
    contract = InputContract.from_json(bundle.settings["input"])

    def images_in(folder: Path, of: InputContract) -> AnomalyImages:
        return read_images(sources_of(folder, decoder, plan.rules, contract.modality), of)

    known, images = images_in(plan.healthy, contract).healthy, images_in(plan.data, contract)
    model, nominal = bundle.model, bundle.settings["nominal"]
    likeness = [model.assess(each.images).likeness.numpy() for each in (known, images)]
    notes = [
        f"Bundle {bundle.name} {bundle.version}; {len(images.images)} images of "
        f"{len(set(images.subjects))} subjects; thresholds and simple methods from "
        f"{len(known.images)} healthy images; nominal share of marked pixels {100 * nominal:g} %.",
        f"Refused as unlike training images: {100 * (likeness[1] > UNLIKE).mean():.1f} % of the "
        f"images, {100 * (likeness[0] > UNLIKE).mean():.1f} % of the healthy ones; AUROC of the "
        f"likeness {auroc(*likeness):.3f}.",
    ]
    if images.diseased.any() and not images.diseased.all() and bundle.guided is not None:
        logits = bundle.guided.logit(images.images).numpy()
        found = auroc(logits[~images.diseased], logits[images.diseased])
        notes.append(f"Classifier: AUROC {found:.3f}.")
    figures: list[Figures] = []
    quiet = images.healthy if plan.masks is None else known
    for name, shown, masks, subjects in _lesions(plan, images, images_in, contract):
        for row, make in _rows(bundle, known.images):
            threshold = threshold_of(make, known.images, nominal)
            of = (name, row, make, shown, masks, subjects, quiet.images, threshold)
            figures.append(measure(*of).figures)
            console.print(f"{name}: {row}", highlight=False)
    write_tables(plan.out, figures, notes)
    console.print(table(figures), markup=False, highlight=False, soft_wrap=True)
    return ExitCode.DERIVED


def _lesions(
    plan: AnomalyPlan,
    images: AnomalyImages,
    images_in: Callable[[Path, InputContract], AnomalyImages],
    contract: InputContract,
) -> Iterator[tuple[str, Tensor, Masks, tuple[str, ...]]]:
    """Yield the masks of a folder, or lesions that are put into the images."""
    if plan.masks is None:
        healthy = images.healthy
        for name, shown, masks in lesions_of(healthy.images):
            yield name, shown, masks, healthy.subjects
        return
    found = images_in(plan.masks, replace(contract, window=(0.0, 1.0)))
    if found.images.shape != images.images.shape:
        raise TooFewImagesError(
            f"{plan.masks} holds {len(found.images)} masks for {len(images.images)} images"
        )
    masks = found.images.numpy() > MASK_ABOVE
    with_lesion = np.flatnonzero(masks.any((1, 2, 3)))
    subjects = tuple(images.subjects[index] for index in with_lesion)
    yield "masks", images.images[with_lesion], masks[with_lesion], subjects


def _rows(bundle: AnomalyBundle, healthy: Tensor) -> Iterator[tuple[str, AnomalyMap]]:
    simple = dict(baselines(healthy, bundle.model.autoencoder, bundle.denoiser))
    yield from rows_of(bundle.model, bundle.guided, simple)
