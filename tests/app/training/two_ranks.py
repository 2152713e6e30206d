"""`torchrun -m tests.app.training.two_ranks OUT`: a tiny run; each rank saves its weights."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from stillscan.app.training.ranks import process_group
from stillscan.app.training.run import Run
from stillscan.models.noise.profile import NoiseProfile
from stillscan.models.training.noisy_images import NoisyImage
from stillscan.models.training.stages import MEAN_SHARE, StagePlan
from tests.app.training.tiny_training import TINY, noisy_stack


def main(out: Path) -> None:
    white = np.zeros((9, 9))
    white[4, 4] = 1
    profile = NoiseProfile(0.025, (0.5,), (0.025,), white, "gaussian")
    images = [NoisyImage(torch.from_numpy(each) / 1000, profile) for each in noisy_stack(4)]
    longer = replace(TINY, blind_spot=StagePlan(60, batch=2, patch=32, learning_rate=0.05))
    with process_group("cpu") as ranks:
        run = Run(out, longer, images[:3], images[3:], radius=0, seed=0, ranks=ranks)
        stages, losses = run.train(), []
        while True:
            try:
                progress = next(stages)
            except StopIteration as end:
                trained = end.value
                break
            mean_learns = progress.done <= MEAN_SHARE * progress.total  # then its variance does
            if progress.step is not None and progress.stage == "blind spot" and mean_learns:
                losses.append(progress.step.loss)
        names = ("blind_spot", "diffusion", "one_step", "student")
        weights = {name: getattr(trained, name).state_dict() for name in names}
        torch.save(weights | {"losses": losses}, out / f"rank{ranks.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
