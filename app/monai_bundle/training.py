"""Trainer of `configs/train.yaml`: `stillscan train` with the interface of a MONAI trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from stillscan.app.datasets.noisy_folder import read_noisy_folder
from stillscan.app.training.command import train_bundle
from stillscan.app.training.profiles import PROFILES, ProfileName, TrainingProfile
from stillscan.app.training.request import TrainingRequest
from stillscan.models.training.noisy_images import NoisyImage
from stillscan.operators.errors import ExitCode
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.selection import SelectionRules


def noisy_images(folder: str | Path, modality: str = "") -> Sequence[NoisyImage]:
    """Load the training images of a folder, with their noise profiles."""
    with Decoder() as decoder:
        found = read_noisy_folder(Path(folder), decoder, SelectionRules(), modality)
    return [image for series in found.series for image in series.images]


@dataclass
class StagesTrainer:
    """Trains a bundle as `stillscan train` does; one epoch is all updates of the profile.

    Args:
        bundle_root: folder of the bundle to which this config belongs.
        dataset_dir: folder of noisy series.
        output_dir: folder of the new bundle.
        device: "cpu" or "cuda", or a torch device.
        modality: as `stillscan train --modality`; "" to read it from DICOM.
        profile: a profile or its name.
        max_epochs: factor on the profile's updates of each stage.
        adapt: start from the student of `bundle_root` (`stillscan train --from`).
        seed: random seed of weight initialisation and training patches.
    """

    bundle_root: str | Path
    dataset_dir: str | Path
    output_dir: str | Path
    device: torch.device | str = "cpu"
    modality: str = ""
    profile: ProfileName | TrainingProfile = "quick"
    max_epochs: int = 1
    adapt: bool = False
    seed: int = 0

    def run(self) -> ExitCode:
        """Train, write the bundle, and return the exit code.

        Raises:
            StillscanError: as `stillscan.app.training.command.train_bundle`.
        """
        with Decoder() as decoder:
            return train_bundle(self.training_request(), decoder, Console())

    def training_request(self) -> TrainingRequest:
        """Return the arguments of the equivalent `stillscan train`."""
        name, profile = "own", self.profile
        if not isinstance(profile, TrainingProfile):
            name, profile = profile, PROFILES[profile]
        return TrainingRequest(
            Path(self.dataset_dir),
            Path(self.output_dir),
            name,
            lengthened(profile, self.max_epochs),
            SelectionRules(),
            (self.modality,) if self.modality else (),
            self.seed,
            torch.device(self.device).type,
            start=Path(self.bundle_root) if self.adapt else None,
        )


def lengthened(profile: TrainingProfile, times: int) -> TrainingProfile:
    """Return the profile with `times` times the updates in every stage."""
    stages = ("blind_spot", "diffusion", "one_step", "student")
    plans = {stage: getattr(profile, stage) for stage in stages}
    return replace(
        profile, **{stage: replace(plan, steps=times * plan.steps) for stage, plan in plans.items()}
    )
