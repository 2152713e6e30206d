"""What a person asked of `stillscan train`, and what is refused before anything is trained."""

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
class Order:
    """What the person asked for.

    Attributes:
        data: folder of noisy images.
        out: of the bundle; the run's own files lie in `out/.training`.
        profile_name: for messages and the bundle.
        profile: how to train.
        rules: which DICOM series are chosen.
        modalities: that the bundle shall serve; empty: those of the DICOM series.
        seed: of first weights and examples.
        device: "auto", "cpu" or "cuda".
        resume: go on with the run that `out` holds.
        start: a bundle whose weights the student begins with; what is made of it is released only
            if it is no worse (`stillscan.app.training.release`).
        evaluation: what that is measured on beside held-out images; None: procedural images.
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
        """Of checkpoints, labels and logs."""
        return self.out / RUN

    @property
    def staging(self) -> Path:
        """Where the bundle is made, and judged, before it is moved."""
        return self.folder / "candidate"


def require_free(order: Order) -> None:
    """Refuse an output that holds something which nobody said should go on.

    Raises:
        OutputHoldsRunError: if there is a run or a bundle and `--resume` was not given.
    """
    if order.resume:
        return
    if (order.folder / "run.json").exists():
        raise OutputHoldsRunError(
            f"{order.out} holds a training run: add --resume to go on with it, or name another "
            "output"
        )
    if (order.out / METADATA).exists():
        raise OutputHoldsRunError(f"{order.out} holds a bundle already: name another output")


def begin(order: Order, settings: dict[str, Any]) -> None:
    """Write down what this run is; or check that it is the one that is resumed.

    Raises:
        RunDiffersError: if it is another.
        OutputError: if the output cannot be written.
    """
    described = json.loads(json.dumps(settings | {"plan": asdict(order.profile)}))
    path = order.folder / "run.json"
    if not path.exists():
        with naming_output_faults(f"write into {order.out}"):
            order.folder.mkdir(parents=True, exist_ok=True)
        save_json(described, path)
        return
    known = load_json(path)
    keys = known.keys() | described.keys()
    differ = sorted(key for key in keys if known.get(key) != described.get(key))
    if differ == ["ranks"]:
        log.warning("resumed by another number of processes: the weights will differ a little")
    elif differ:
        raise RunDiffersError(
            f"the run in {order.out} was begun with other {', '.join(differ)}; it can be resumed "
            "with the same images, profile and seed only"
        )


def origin_of(order: Order) -> Origin | None:
    """Return the bundle that the student begins with, with its teacher where it has one.

    Raises:
        ModelError: if it cannot be loaded.
        NothingToAdaptError: if the profile adapts a bundle and none was named.
        SettingsError: if the folder to evaluate on is not there.
    """
    if order.start is None:
        if order.profile.adapts or order.evaluation is not None:
            wanted = f"profile {order.profile_name}" if order.profile.adapts else "--evaluate"
            raise NothingToAdaptError(f"{wanted} is for fine-tuning a bundle: add --from BUNDLE")
        return None
    if order.evaluation is not None and not order.evaluation.is_dir():
        raise SettingsError(f"--evaluate {order.evaluation} is not a folder")
    try:
        bundle = load_bundle(order.start, precision="float32")
        there = all((order.start / path).is_file() for path in (BLIND_SPOT, DIFFUSION))
        teacher = load_teacher(order.start)[:2] if there else None
    except BundleError as error:
        raise ModelError(str(error)) from error
    return Origin(bundle.info, bundle.sha256, teacher)


def told_modality(order: Order) -> str:
    """Return what files that cannot say it are taken to be: one modality, if only one was told."""
    return order.modalities[0] if len(order.modalities) == 1 else ""


def require_known_modalities(order: Order) -> None:
    """Refuse a modality that the application would never ask a bundle for.

    Raises:
        UnknownModalityError: if there is one.
    """
    for modality in order.modalities:
        if modality not in order.rules.modalities:
            known = ", ".join(order.rules.modalities)
            raise UnknownModalityError(f"--modality {modality}: expected one of {known}")


def modalities_of(order: Order, folder: NoisyFolder) -> tuple[str, ...]:
    """Return which modalities the bundle will serve.

    Raises:
        UnknownModalityError: if neither arguments nor images say it.
    """
    found = {series.source.modality for series in folder.series} - {""}
    modalities = order.modalities or tuple(sorted(found))
    if not modalities:
        raise UnknownModalityError(
            "the images do not say which modality they are: add --modality MR (or CT, CR, DX)"
        )
    return modalities
