"""The bundle that a training run writes: weights and metadata."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from stillscan.app.bundles.files import add_bundle_files
from stillscan.app.bundles.metadata import BundleText, bundle_metadata, page, table
from stillscan.app.bundles.release import ReleaseRefusedError
from stillscan.app.datasets.noisy_folder import NoisyFolder
from stillscan.app.training.adaptation import Origin
from stillscan.app.training.profiles import TrainingProfile
from stillscan.app.training.run import NOISY, Trained
from stillscan.models.bundle import METADATA, save_bundle
from stillscan.models.training.losses import MORE_NOISE
from stillscan.operators.output_faults import naming_output_faults

FEWEST_SUBJECTS = 5  # a bundle from fewer subjects is marked as preliminary
OWNER = "the organisation that trained it"
LICENCE = """\
The weights of this bundle belong to the organisation that trained it. No licence is given: the
owner may replace this file. The files in `configs` are part of Stillscan (Apache License 2.0).
"""
DATA_LICENCE = """\
The images that the networks were trained on belong to that organisation. No image is part of
this bundle, and no name of a file, a series or a patient.
"""


def metadata_of(
    trained: Trained,
    folder: NoisyFolder,
    profile: TrainingProfile,
    settings: dict[str, Any],
    modalities: Sequence[str],
    name: str,
    origin: Origin | None = None,
) -> dict[str, Any]:
    """Return the metadata of the bundle; they contain no name of a file, series or patient.

    Args:
        trained: result of the run.
        folder: training images.
        profile: training profile.
        settings: settings of the run: name of the profile, seed, first weights.
        modalities: modalities that the bundle is for.
        name: name of the bundle.
        origin: the bundle it was made from.
    """
    sigmas = [series.profile.sigma for series in folder.series]
    most = math.sqrt(1 + MORE_NOISE[1] ** 2)
    kinds = Counter(series.source.modality or "not stated" for series in folder.series)
    said = ", ".join(f"{count} x {modality}" for modality, count in sorted(kinds.items()))
    source = (
        f"{len(folder.series)} series of {folder.subjects} subjects ({said}), "
        f"{folder.images} slices; no clean images"
    )
    version, changes, earlier = "0.1.0", "trained by `stillscan train`", {}
    low, high = min(sigmas), most * max(sigmas)
    preliminary = folder.subjects < FEWEST_SUBJECTS or trained.teacher == NOISY
    if origin is not None:
        info = origin.info
        version, earlier = _next(info.version), info.metadata.get("changelog", {})
        changes = f"made from {info.name} {info.version} by `stillscan train --from`"
        if profile.adapts:  # earlier training data still count
            source = f"{info.metadata['data_source']}; fine-tuned on {source}"
            low, high = min(low, info.noise_range[0]), max(max(sigmas), info.noise_range[1])
            preliminary |= bool(info.metadata["stillscan"].get("preliminary", False))
    return bundle_metadata(
        BundleText(
            name=f"Stillscan student, {name}",
            data_source=source,
            version=version,
            changelog=changes,
            earlier=earlier,
            modalities=modalities,
            noise_range=(low, high),
            preliminary=preliminary,
            training={
                "command": "stillscan train",
                **settings,
                "teacher": trained.teacher,
                "best_candidate": trained.best,
                "remarks": list(profile.remarks),
                "stages": {
                    stage: asdict(getattr(profile, stage))
                    for stage in ("blind_spot", "diffusion", "one_step", "student")
                },
                "rounds_of_distillation": 2 if profile.second_round else 1,
                "images": {
                    "fingerprint": folder.fingerprint(),
                    "series": [
                        {
                            "modality": series.source.modality,
                            "slices": len(series.images),
                            "size": list(series.images[0].pixels.shape),
                            "sigma": round(series.profile.sigma, 6),
                            "radius": series.profile.radius,
                            "family": series.profile.family,
                        }
                        for series in folder.series
                    ],
                },
            },
            figures={"command": "stillscan train", "clean_free": trained.figures},
            authors=OWNER,
            rights=f"Copyright (c) {OWNER}",
            licence="as its owner says",
        )
    )


def _next(version: str) -> str:
    """Return the next version."""
    *first, last = version.split(".")
    return ".".join([*first, str(int(last) + 1)])


def stage_bundle(trained: Trained, metadata: dict[str, Any], staging: Path) -> None:
    """Build the whole bundle in a folder of the run.

    Raises:
        OutputError: if it cannot be written.
    """
    with naming_output_faults(f"write {staging}"):
        shutil.rmtree(staging, ignore_errors=True)
        teacher = None
        if trained.blind_spot is not None and trained.diffusion is not None:
            teacher = (trained.blind_spot, trained.diffusion)
        save_bundle(trained.student, staging, metadata, teacher)
        add_bundle_files(staging, LICENCE, DATA_LICENCE)
    describe(metadata, staging)


def describe(metadata: dict[str, Any], folder: Path) -> None:
    """Write metadata and README of a bundle.

    Raises:
        OutputError: if it cannot be written.
    """
    with naming_output_faults(f"write {folder}"):
        text = json.dumps(metadata, indent=2, ensure_ascii=False) + "\n"
        (folder / METADATA).write_text(text, encoding="utf-8")
        (folder / "docs" / "README.md").write_text(_page(metadata), encoding="utf-8")


def publish(staging: Path, out: Path) -> None:
    """Move the staged bundle, file by file; the metadata last.

    A folder without metadata is not a bundle, so an interruption leaves none or a whole one.

    Raises:
        OutputError: if it cannot be written.
    """
    with naming_output_faults(f"write the bundle {out}"):
        files = [path.relative_to(staging) for path in sorted(staging.rglob("*")) if path.is_file()]
        for file in sorted(files, key=lambda path: path == METADATA):
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            (staging / file).replace(out / file)
        shutil.rmtree(staging)


def refuse(staging: Path, aside: Path, reasons: Sequence[str]) -> NoReturn:
    """Move a refused candidate to a place where it is not taken for a released bundle.

    Raises:
        ReleaseRefusedError: always; it names the reasons.
        OutputError: if it cannot be moved.
    """
    with naming_output_faults(f"write {aside}"):
        shutil.rmtree(aside, ignore_errors=True)
        staging.replace(aside)
    raise ReleaseRefusedError(
        f"the candidate is not released; it was moved to {aside}: {'; '.join(reasons)}"
    )


def _page(metadata: dict[str, Any]) -> str:
    ours = metadata["stillscan"]
    training = ours["training"]
    data = [
        f"Trained by `stillscan train` (profile {training['profile']}) on "
        f"{metadata['data_source']}.",
        *(f"{remark[:1].upper()}{remark[1:]}." for remark in training["remarks"]),
    ]
    if ours["preliminary"]:
        data.append(
            f"Preliminary: fewer than {FEWEST_SUBJECTS} subjects; measure before relying on it."
        )
    figures = ours["figures"]["clean_free"]
    paragraphs = [] if "student" not in figures else _candidates(figures, training["teacher"])
    if "release" in ours:
        paragraphs += _release(ours["release"])
    return page(metadata, " ".join(data), *paragraphs)


def _candidates(figures: dict[str, Any], teacher: str) -> list[str]:
    rows = [
        [line["name"], f"{line['error_db']:.2f}", _between(line["behind_db"], line["interval_db"])]
        for line in figures["candidates"]
    ]
    student = figures["student"]
    behind = _between(student["behind_teacher_db"], student["interval_db"])
    return [
        f"Candidates for the teacher on {figures['images']} held-out images, by recorrupted pairs "
        "(error in dB relative to the noise; distance from the best with its 95 % interval):",
        table(["candidate", "error", "behind"], rows),
        f"The student was trained on the estimates of: {teacher}. Distance in dB: {behind}.",
    ]


def _release(release: dict[str, Any]) -> list[str]:
    start = release["from"]
    rows = [
        [
            row["measure"],
            str(row["images"]),
            _between(row["better_db"], row["interval_db"]),
            row["verdict"],
        ]
        for row in release["table"]
    ]
    said = "Released" if release["released"] else "NOT released: do not use it"
    return [
        f"{said}. Compared with its origin, {start['name']} {start['version']} (error lower "
        f"by so many dB, 95 % interval; up to {release['margin_db']} dB worse counts as no worse):",
        table(["measure", "slices", "better by", "verdict"], rows),
        "\n".join(f"- {reason}" for reason in release["reasons"]),
    ]


def _between(value: float, limits: Sequence[float]) -> str:
    return f"{value:+.2f} ({limits[0]:+.2f} to {limits[1]:+.2f})"
