"""Training profiles: `quick`, `standard`, `paper`, `adapt`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from stillscan.models.networks.conditional_diffusion import DEFAULT, PAPER, Profile
from stillscan.models.training.stages import StagePlan

ProfileName = Literal["quick", "standard", "paper", "adapt"]
Widths = tuple[int, ...]


@dataclass(frozen=True)
class TrainingProfile:
    """All parameters of a run except the images and the seed.

    Attributes:
        blind_spot, diffusion, one_step, student: length of each stage.
        condition: parameterisation of the conditional diffusion model.
        blind_spot_width, blind_spot_blocks: size of stage 1.
        widths: channels of the diffusion network and the one-step network.
        student_widths: channels of the student.
        decay: decay of the moving average of the weights, which is the result.
        steps: S, number of timesteps of a sample.
        teacher: the best candidate on held-out noisy images, or always SRDS, as published.
        judged: number of held-out images for that choice, cut to `judged_side` pixels.
        label_pixels: number of pixels that the teacher may process to label images; a sample of 20
            steps processes each pixel 20 times.
        checkpoint_every: number of updates between checkpoints.
        remarks: notes on the profile for users of the bundle.
        second_round: the student is then trained once more on its own estimates, whose error is
            smaller than its teacher's (measured: docs/method.md).
        adapts: only the student of a bundle is trained (recorrupted-to-recorrupted).
    """

    blind_spot: StagePlan
    diffusion: StagePlan
    one_step: StagePlan
    student: StagePlan
    condition: Profile = DEFAULT
    blind_spot_width: int = 40
    blind_spot_blocks: int = 4
    widths: Widths = (32, 64, 128)
    student_widths: Widths = (32, 64, 128)
    decay: float = 0.999
    steps: int = 10
    teacher: Literal["best", "srds"] = "best"
    judged: int = 16
    judged_side: int = 256
    label_pixels: int = 2**28
    checkpoint_every: int = 250
    remarks: tuple[str, ...] = field(default=())
    second_round: bool = True
    adapts: bool = False


QUICK = TrainingProfile(
    blind_spot=StagePlan(1400, batch=8),
    diffusion=StagePlan(1400),
    one_step=StagePlan(4000),
    student=StagePlan(1400),
    blind_spot_width=32,
    blind_spot_blocks=3,
    remarks=("made for two cores of a CPU in half an hour: small networks, briefly trained",),
)
STANDARD = TrainingProfile(
    blind_spot=StagePlan(20_000, batch=32, patch=80),
    diffusion=StagePlan(60_000, batch=32, patch=80),
    one_step=StagePlan(60_000, batch=32, patch=80),
    student=StagePlan(60_000, batch=32, patch=80),
    blind_spot_width=64,
    blind_spot_blocks=6,
    widths=(48, 96, 192),
    student_widths=(48, 96, 192),
    decay=0.9999,
    steps=20,
    judged=64,
    judged_side=512,
    label_pixels=2**33,
    checkpoint_every=1000,
)
PUBLISHED = TrainingProfile(
    blind_spot=StagePlan(20_000, batch=32, patch=80, learning_rate=1e-4),
    diffusion=StagePlan(100_000, batch=32, patch=80, learning_rate=1e-4),
    one_step=StagePlan(60_000, batch=32, patch=80, learning_rate=1e-4),
    student=StagePlan(60_000, batch=32, patch=80, learning_rate=1e-4),
    condition=PAPER,
    blind_spot_width=64,
    blind_spot_blocks=6,
    widths=(48, 96, 192),
    student_widths=(48, 96, 192),
    decay=0.9999,
    steps=20,
    teacher="srds",
    judged=64,
    judged_side=512,
    label_pixels=2**33,
    checkpoint_every=1000,
    second_round=False,
    remarks=(
        "diffusion as published (arXiv 2504.00264): noise prediction, L1, condition BSN(y)",
        "unlike there, all networks are this project's plain convolutional ones: no PUCA or LG-BPN "
        "as blind spot, no NAFNet as student, and the student is trained with squared error",
    ),
)
RESTS = StagePlan(0)
ADAPT = TrainingProfile(
    blind_spot=RESTS,
    diffusion=RESTS,
    one_step=RESTS,
    student=StagePlan(200, learning_rate=1e-4),  # a tenth of the rate for new weights
    decay=0.99,
    checkpoint_every=100,
    remarks=("fine-tuned from a bundle, recorrupted-to-recorrupted, on a site's noisy series",),
    second_round=False,
    adapts=True,
)
PROFILES: Mapping[ProfileName, TrainingProfile] = {
    "quick": QUICK,
    "standard": STANDARD,
    "paper": PUBLISHED,
    "adapt": ADAPT,
}
