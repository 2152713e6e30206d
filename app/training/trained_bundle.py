"""The bundle that a training run ends with: weights, and in its metadata how they came to be."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.monai_bundle.files import add_bundle_files
from app.training.bundle_metadata import BundleText, bundle_metadata, page, table
from app.training.noisy_folder import NoisyFolder
from app.training.profiles import TrainingProfile
from app.training.run import NOISY, Trained
from models.bundle import METADATA, save_bundle
from models.losses import MORE_NOISE
from operators.output_faults import naming_output_faults

FEWEST_SUBJECTS = 5  # below it a bundle calls itself preliminary
OWNER = "whoever trained it"
LICENCE = """\
The weights of this bundle belong to whoever trained it. No licence is given here: the owner
may replace this file. The files in `configs` are part of Stillscan (Apache License 2.0).
"""
DATA_LICENCE = """\
The images that the networks learned from belong to whoever trained them. No image is part of
this bundle, and no name of a file, a series or a person.
"""


def metadata_of(
    trained: Trained,
    folder: NoisyFolder,
    profile: TrainingProfile,
    settings: dict[str, Any],
    modalities: Sequence[str],
    name: str,
) -> dict[str, Any]:
    """What the bundle says of itself; no name of a file, of a series or of a person.

    Args:
        trained: by the run.
        folder: that it learned from.
        profile: that it was trained by.
        settings: of the run: profile's name, seed, first weights.
        modalities: that the bundle serves.
        name: of the bundle.
    """
    sigmas = [series.profile.sigma for series in folder.series]
    most = math.sqrt(1 + MORE_NOISE[1] ** 2)
    kinds = Counter(series.source.modality or "not said" for series in folder.series)
    said = ", ".join(f"{count} x {modality}" for modality, count in sorted(kinds.items()))
    return bundle_metadata(
        BundleText(
            name=f"Stillscan student, {name}",
            data_source=f"{len(folder.series)} series of {folder.subjects} subjects ({said}), "
            f"{folder.images} slices; no clean images",
            version="0.1.0",
            changelog="trained by `stillscan train`",
            modalities=modalities,
            noise_range=(min(sigmas), most * max(sigmas)),
            preliminary=folder.subjects < FEWEST_SUBJECTS or trained.teacher == NOISY,
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


def write_bundle(trained: Trained, metadata: dict[str, Any], staging: Path, out: Path) -> None:
    """Make the bundle in `staging`, then move it file by file; the metadata come last.

    A folder without metadata is no bundle, so a kill leaves none or a whole one.

    Raises:
        OutputError: if it cannot be written.
    """
    with naming_output_faults(f"write the bundle {out}"):
        shutil.rmtree(staging, ignore_errors=True)
        teacher = (trained.blind_spot, trained.diffusion)
        save_bundle(trained.student, staging, metadata, teacher)
        add_bundle_files(staging, LICENCE, DATA_LICENCE)
        (staging / "docs" / "README.md").write_text(_page(metadata), encoding="utf-8")
        files = [path.relative_to(staging) for path in sorted(staging.rglob("*")) if path.is_file()]
        for file in sorted(files, key=lambda path: path == METADATA):
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            (staging / file).replace(out / file)
        shutil.rmtree(staging)


def _page(metadata: dict[str, Any]) -> str:
    ours = metadata["stillscan"]
    figures, training = ours["figures"]["clean_free"], ours["training"]
    rows = [
        [
            line["name"],
            f"{line['error_db']:.2f}",
            f"{line['behind_db']:+.2f} ({line['interval_db'][0]:+.2f} to "
            f"{line['interval_db'][1]:+.2f})",
        ]
        for line in figures["candidates"]
    ]
    student = figures["student"]
    data = [
        f"Trained by `stillscan train` (profile {training['profile']}) on "
        f"{metadata['data_source']}.",
        *(f"{remark}." for remark in training["remarks"]),
    ]
    if ours["preliminary"]:
        data.append(
            f"Preliminary: fewer than {FEWEST_SUBJECTS} subjects; measure before relying on it."
        )
    paragraphs = [
        f"Candidates for the teacher on {figures['images']} held-out images, by recorrupted pairs "
        "(error in dB of the noise; how far behind the best, with its 95 % interval):",
        table(["candidate", "error", "behind"], rows),
        f"The student learned from: {training['teacher']}. It is "
        f"{student['behind_teacher_db']:+.2f} dB behind it ({student['interval_db'][0]:+.2f} to "
        f"{student['interval_db'][1]:+.2f}).",
    ]
    return page(metadata, " ".join(data), *paragraphs)
