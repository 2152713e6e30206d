"""`stillscan train DATA --task anomaly`: trains, calibrates and checks an anomaly bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

import stillscan
from stillscan.app.bundles.choice import resolve_device
from stillscan.app.datasets.anomaly_images import (
    AnomalyImages,
    contract_of,
    read_images,
    require_labels_apart_from_scanners,
    sources_of,
    split,
)
from stillscan.app.evaluation.anomaly.figures import (
    REFERENCES,
    Figures,
    interval_of,
    lesions_of,
    measure,
    row_name,
    rows_of,
    table,
    threshold_of,
)
from stillscan.app.pipeline.output_folder import require_apart
from stillscan.app.training.anomaly.run import AnomalyProfile, AnomalyRun
from stillscan.app.training.command import deterministic, last_of, naming_memory_faults, write_logs
from stillscan.app.training.console import watching
from stillscan.app.training.curves import open_logs
from stillscan.app.training.errors import UnknownModalityError
from stillscan.app.training.ranks import process_group
from stillscan.app.training.request import TrainingRequest, begin, require_free
from stillscan.app.training.run import Progress
from stillscan.app.training.trained_bundle import publish, refuse
from stillscan.models.anomaly.autoencoder import LatentAutoencoder
from stillscan.models.anomaly.baselines import CoarseNoiseDenoiser, baselines
from stillscan.models.anomaly.bundle import TASK, save_anomaly_bundle
from stillscan.models.anomaly.guided import GUIDED, SCALES, GuidedAnomalyModel
from stillscan.models.anomaly.latent import ROWS, LatentAnomalyModel, Reference, Row
from stillscan.models.anomaly.prior import LatentDiffusion, NoisyClassifier
from stillscan.models.metrics.segmentation import auroc, average_precision
from stillscan.operators.anomaly.assessing import CANDIDATE
from stillscan.operators.anomaly.input_contract import InputContract
from stillscan.operators.errors import ExitCode
from stillscan.operators.output_faults import naming_output_faults
from stillscan.operators.reading.decoder import Decoder

NOMINAL = 0.025  # share of healthy pixels that is marked
JUDGED = 300  # images for the choice of the row, and again for the release check
CALIBRATED = 600  # images for thresholds and scales
HEALTHY_CHANGE = 0.01  # mean guided map of healthy images that a scale may make
CLASSIFIER_AUROC = 0.9  # below it there are no guided maps
INTENDED_USE = (
    "Research. Says how unusual a place is beside a set of healthy images; not a medical device, "
    "not for diagnosis, and a quiet map rules nothing out."
)


@dataclass(frozen=True)
class AnomalyRequest(TrainingRequest):
    """The arguments of a training run; `labels` is a CSV file, None for healthy images only."""

    profile: AnomalyProfile  # type: ignore[assignment]
    labels: Path | None = None


@dataclass(frozen=True)
class Checked:
    """The result of calibration and release check.

    Attributes:
        guided: None if there are no labels, or the classifier is too poor.
        classifier_auroc: on the test; None without labels.
        achieved: share of healthy pixels of the test that a candidate region would hold.
        reasons: why the bundle may not be released.
    """

    model: LatentAnomalyModel
    guided: GuidedAnomalyModel | None
    classifier_auroc: float | None
    achieved: float
    figures: list[Figures]
    reasons: list[str]


def train_anomaly_bundle(request: AnomalyRequest, decoder: Decoder, console: Console) -> ExitCode:
    """Train, calibrate and check; write the bundle, or move the refused candidate aside.

    Raises:
        SettingsError: if the arguments contradict each other or the output.
        NothingToDoError, InputError: if there are no images to train on.
        ModelError: if the device is missing, or the loss diverges.
        ReleaseRefusedError: if a simple method is as good on held-out subjects.
        OutputError: if a file cannot be written.
    """
    device = torch.device(resolve_device(request.device))
    require_apart(request.data, request.out)
    require_free(request)
    given = request.modalities[0] if len(request.modalities) == 1 else ""
    sources = sources_of(request.data, decoder, request.rules, given)
    modality = given or sources[0].modality
    if not modality or any(each.modality not in ("", modality) for each in sources):
        raise UnknownModalityError("expected images of one modality: add --modality MR (or CT)")
    contract = contract_of(sources, modality)
    images = read_images(sources, contract, request.labels)
    two_class = bool(images.diseased.any())
    if two_class:
        require_labels_apart_from_scanners(images)
    training, validation, test = split(images, request.seed)
    kind = "groups of look-alikes" if images.look_alikes else "subjects"
    parts = [
        f"{len(part.images)} of {len(set(part.subjects))}" for part in (training, validation, test)
    ]
    console.print(f"training, validation, test: {', '.join(parts)} {kind}", highlight=False)
    settings = {
        "profile": request.profile_name,
        "seed": request.seed,
        "images": hashlib.sha256(images.images.numpy().tobytes()).hexdigest(),
        "labels": hashlib.sha256(images.diseased.tobytes()).hexdigest(),
    }
    with process_group(str(device)) as ranks:
        begin(request, settings)
        run = AnomalyRun(request.folder, request.profile, training, two_class, request.seed, device)
        work = request.profile.work(two_class=two_class)
        with (
            deterministic(ranks),
            naming_memory_faults(),
            open_logs(run.folder, settings) as logs,
            watching(console, work) as watch,
        ):

            def note(progress: Progress) -> None:
                watch(progress)
                write_logs(logs, progress)

            networks = {name: each.cpu() for name, each in last_of(run.train(), note).items()}
    found = checked(networks, training, validation, test)
    console.print(table(found.figures), markup=False, highlight=False, soft_wrap=True)
    if found.classifier_auroc is not None:
        console.print(f"classifier: AUROC {found.classifier_auroc:.3f}", highlight=False)
    if found.guided is None:
        networks = {name: networks[name] for name in ("autoencoder", "prior", "denoiser")}
    counts = {"subjects": len(set(training.subjects)), "slices": len(training.images), "kind": kind}
    metadata = metadata_of(request, contract, found, counts)
    with naming_output_faults(f"write {request.staging}"):
        save_anomaly_bundle(networks, found.model, request.staging, metadata)
        (request.staging / "docs").mkdir(exist_ok=True)
        card = model_card(metadata, found.figures)
        (request.staging / "docs/README.md").write_text(card, encoding="utf-8")
    if found.reasons:
        refuse(request.staging, request.folder / "refused", found.reasons)
    publish(request.staging, request.out)
    console.print(f"bundle in {request.out}", soft_wrap=True, highlight=False)
    return ExitCode.DERIVED


def checked(
    networks: Mapping[str, nn.Module],
    training: AnomalyImages,
    validation: AnomalyImages,
    test: AnomalyImages,
) -> Checked:
    """Choose row, reference and scale on validation images and measure all rows on the test."""
    autoencoder, prior, denoiser = (networks[name] for name in ("autoencoder", "prior", "denoiser"))
    assert isinstance(autoencoder, LatentAutoencoder)
    assert isinstance(prior, LatentDiffusion)
    assert isinstance(denoiser, CoarseNoiseDenoiser)
    healthy, held_out = (thinned(each.healthy, CALIBRATED) for each in (validation, test))
    usual = healthy.images, healthy.subjects, NOMINAL
    model = LatentAnomalyModel(autoencoder, prior).calibrated(*usual)
    few, judged = thinned(healthy, JUDGED), thinned(held_out, JUDGED)
    precision: dict[tuple[Row, Reference], float] = dict.fromkeys(product(ROWS, REFERENCES), 0.0)
    for _, images, masks in lesions_of(few.images):
        for reference in REFERENCES:
            maps = model.maps(images, ROWS, 0, reference)
            for row in ROWS:
                each = zip(maps[row].numpy(), masks, strict=True)
                precision[row, reference] += float(np.mean([average_precision(*of) for of in each]))
    row, reference = max(precision, key=precision.__getitem__)
    model = replace(model, row=row, reference=reference).calibrated(*usual)
    guided, classifier_auroc = guided_model(networks, validation, test)
    simple = dict(baselines(training.healthy.images, autoencoder, denoiser))
    found = [
        {
            name: measure(
                lesion,
                name,
                make,
                images,
                masks,
                judged.subjects,
                judged.images,
                threshold_of(make, few.images, NOMINAL),
            )
            for name, make in rows_of(model, guided, simple)
        }
        for lesion, images, masks in lesions_of(judged.images)
    ]
    ours = row_name(row, reference)
    reasons = []
    for rows in found:
        for name in simple:
            gains = rows[ours].of_images - rows[name].of_images
            gain = interval_of(gains, judged.subjects)
            if not gain.low > 0:
                reasons.append(
                    f"{rows[name].figures.lesions}: {ours} is not shown to be better than {name} "
                    f"({gain.value:+.3f}, {gain.low:+.3f} to {gain.high:+.3f})"
                )
    achieved = float((model.assess(judged.images).score >= CANDIDATE).float().mean())
    figures = [each.figures for rows in found for each in rows.values()]
    return Checked(model, guided, classifier_auroc, achieved, figures, reasons)


def guided_model(
    networks: Mapping[str, nn.Module], validation: AnomalyImages, test: AnomalyImages
) -> tuple[GuidedAnomalyModel | None, float | None]:
    """Return the guided model with the largest scale that leaves healthy images as they are.

    Returns:
        None where there are no labels or the classifier's AUROC on the test is too low; the AUROC.
    """
    if "classifier" not in networks:
        return None, None
    autoencoder, prior = networks["autoencoder"], networks["two_class_prior"]
    classifier = networks["classifier"]
    assert isinstance(autoencoder, LatentAutoencoder)
    assert isinstance(prior, LatentDiffusion)
    assert isinstance(classifier, NoisyClassifier)
    model = GuidedAnomalyModel(autoencoder, prior, classifier, SCALES[0])
    logits = model.logit(test.images).numpy()
    found = auroc(logits[~test.diseased], logits[test.diseased])
    few = thinned(validation.healthy, JUDGED // 4).images
    for scale in SCALES:
        wider = replace(model, scale=scale)
        if float(wider.maps(few)[GUIDED].mean()) > HEALTHY_CHANGE:
            break
        model = wider
    return (model if found >= CLASSIFIER_AUROC else None), found


def thinned(images: AnomalyImages, count: int) -> AnomalyImages:
    """Return at most `count` images, spread over all of them."""
    which = np.zeros(len(images.images), bool)
    which[np.linspace(0, len(which) - 1, min(count, len(which))).round().astype(int)] = True
    return images.chosen(which)


def metadata_of(
    request: AnomalyRequest,
    contract: InputContract,
    found: Checked,
    counts: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the metadata; they contain no name of a file, series or patient."""
    return {
        "version": "0.1.0",
        "name": f"Stillscan anomaly maps, {request.out.resolve().name}",
        "task": "Anomaly maps",
        "description": "VQ-VAE and diffusion in its latents: how unusual a place is",
        "intended_use": INTENDED_USE,
        "data_source": f"{counts['slices']} slices of {counts['subjects']} {counts['kind']}",
        "license": "as its owner says",
        "required_packages_version": {"stillscan": stillscan.__version__},
        "pytorch_version": torch.__version__.split("+")[0],
        "stillscan": {
            "task": TASK,
            "modalities": [contract.modality],
            "input": asdict(contract),
            "row": found.model.row,
            "reference": found.model.reference,
            "nominal": NOMINAL,
            "scale": found.guided.scale if found.guided else None,
            "classifier_auroc": found.classifier_auroc,
            "candidates": {"nominal": 10**-CANDIDATE, "achieved": found.achieved},
            "training": {"profile": request.profile_name, "seed": request.seed, **counts},
            "figures": [asdict(each) for each in found.figures],
            "release": {"released": not found.reasons, "reasons": found.reasons},
        },
    }


def model_card(metadata: Mapping[str, Any], figures: Sequence[Figures]) -> str:
    """Return the README of the bundle."""
    ours = metadata["stillscan"]
    release = ours["release"]
    said = "Released" if release["released"] else "NOT released: do not use it"
    return (
        "\n\n".join(
            [
                f"# {metadata['name']}",
                f"{said}. {metadata['intended_use']}",
                f"Trained on {metadata['data_source']} ({ours['training']['profile']}). The map is "
                f"`{ours['row']}` against the {ours['reference']}.",
                "## Figures on held-out subjects",
                table(figures),
                *(f"- {reason}" for reason in release["reasons"]),
                "## For the owner to fill in",
                "Who was imaged, where, with which scanners and protocols; who says that they were "
                "healthy; for whom the maps are, and who looks at them; when they are not shown.",
            ]
        )
        + "\n"
    )
