"""The request of `stillscan train`, and what is refused before anything is trained."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stillscan.app.datasets.noisy_folder import NoisyFolder
from stillscan.app.training.adaptation import Origin
from stillscan.app.training.checkpoints import load_json, save_json
from stillscan.app.training.errors import (
    NothingToAdaptError,
    OutputHoldsRunError,
    RunDiffersError,
    UnknownModalityError,
)
from stillscan.app.training.profiles import TrainingProfile
from stillscan.models.bundle import (
    BLIND_SPOT,
    DIFFUSION,
    METADATA,
    BundleError,
    load_bundle,
    load_teacher,
)
from stillscan.operators.errors import ModelError, SettingsError
from stillscan.operators.output_faults import naming_output_faults
from stillscan.operators.reading.selection import SelectionRules

RUN = ".training"

log = logging.getLogger("stillscan")


@dataclass(frozen=True)
class TrainingRequest:
    """The arguments of a training run.

    Attributes:
        data: folder of noisy images.
        out: folder of the bundle; the run's own files are in `out/.training`.
        profile_name: name of the profile, for messages and the bundle.
        profile: parameters of the training.
        rules: rules for the selection of DICOM series.
        modalities: modalities that the bundle is for; empty: those of the DICOM series.
        seed: random seed of weight initialisation and training patches.
        device: "auto", "cpu" or "cuda".
        resume: continue the run in `out`.
        start: bundle whose weights the student starts with; the new bundle is released only if it
            is not worse (`stillscan.app.training.release`).
        evaluation: images for that comparison beside held-out images; None: procedural images.
    """

    data: Path
    out: Path
    profile_name: str
    profile: TrainingProfile
    rules: SelectionRules
    modalities: tuple[str, ...] = ()
    seed: int = 0
    device: str = "auto"
    resume: bool = False
    start: Path | None = None
    evaluation: Path | None = None

    @property
    def folder(self) -> Path:
        """Folder of checkpoints, labels and logs."""
        return self.out / RUN

    @property
    def staging(self) -> Path:
        """Folder in which the bundle is built and compared before it is moved."""
        return self.folder / "candidate"


def require_free(request: TrainingRequest) -> None:
    """Refuse an output folder that already holds a run or a bundle.

    Raises:
        OutputHoldsRunError: if it holds a bundle, or a run and `--resume` was not given.
    """
    if request.resume:
        return
    if (request.folder / "run.json").exists():
        raise OutputHoldsRunError(
            f"{request.out} holds a training run: add --resume to continue it, or name another "
            "output"
        )
    if (request.out / METADATA).exists():
        raise OutputHoldsRunError(f"{request.out} holds a bundle already: name another output")


def begin(request: TrainingRequest, settings: dict[str, Any]) -> None:
    """Record the settings of this run, or check that they match the run to be resumed.

    Raises:
        RunDiffersError: if they do not match.
        OutputError: if the output cannot be written.
    """
    described = json.loads(json.dumps(settings | {"plan": asdict(request.profile)}))
    path = request.folder / "run.json"
    if not path.exists():
        with naming_output_faults(f"write into {request.out}"):
            request.folder.mkdir(parents=True, exist_ok=True)
        save_json(described, path)
        return
    known = load_json(path)
    keys = known.keys() | described.keys()
    differ = sorted(key for key in keys if known.get(key) != described.get(key))
    if differ == ["ranks"]:
        log.warning("resumed with another number of processes: the weights will differ a little")
    elif differ:
        raise RunDiffersError(
            f"the run in {request.out} was started with other {', '.join(differ)}; it can only be "
            "resumed with the same images, profile and seed"
        )


def origin_of(request: TrainingRequest) -> Origin | None:
    """Load the bundle that the student starts from, with its teacher if it has one.

    Raises:
        ModelError: if it cannot be loaded.
        NothingToAdaptError: if the profile adapts a bundle and none was named.
        SettingsError: if the folder of `--evaluate` does not exist.
    """
    if request.start is None:
        if request.profile.adapts or request.evaluation is not None:
            wanted = f"profile {request.profile_name}" if request.profile.adapts else "--evaluate"
            raise NothingToAdaptError(f"{wanted} is for fine-tuning a bundle: add --from BUNDLE")
        return None
    if request.evaluation is not None and not request.evaluation.is_dir():
        raise SettingsError(f"--evaluate {request.evaluation} is not a folder")
    try:
        bundle = load_bundle(request.start, precision="float32")
        there = all((request.start / path).is_file() for path in (BLIND_SPOT, DIFFUSION))
        teacher = load_teacher(request.start)[:2] if there else None
    except BundleError as error:
        raise ModelError(str(error)) from error
    return Origin(bundle.info, bundle.sha256, teacher)


def given_modality(request: TrainingRequest) -> str:
    """Return the modality of files that do not state it: the one that was given, if only one."""
    return request.modalities[0] if len(request.modalities) == 1 else ""


def require_known_modalities(request: TrainingRequest) -> None:
    """Refuse a modality that the application does not process.

    Raises:
        UnknownModalityError: if there is one.
    """
    for modality in request.modalities:
        if modality not in request.rules.modalities:
            known = ", ".join(request.rules.modalities)
            raise UnknownModalityError(f"--modality {modality}: expected one of {known}")


def modalities_of(request: TrainingRequest, folder: NoisyFolder) -> tuple[str, ...]:
    """Return the modalities that the bundle is for.

    Raises:
        UnknownModalityError: if neither arguments nor images state one.
    """
    found = {series.source.modality for series in folder.series} - {""}
    modalities = request.modalities or tuple(sorted(found))
    if not modalities:
        raise UnknownModalityError(
            "the images do not state their modality: add --modality MR (or CT, CR, DX)"
        )
    return modalities
