"""The three stages of DiffDenoise as generators: each yields a `Step` after every update.

noisy images -> blind spot (1) -> conditional diffusion (2) -> a teacher's labels -> student (3).
No clean image is needed anywhere. The caller prints, saves checkpoints, or stops.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import distributed

from stillscan.models.denoisers.denoiser import Denoiser
from stillscan.models.networks.blind_spot import BlindSpotNetwork
from stillscan.models.sampling.schedule import NoiseSchedule
from stillscan.models.training.loop import Objective, Step, Training, train
from stillscan.models.training.losses import (
    DiffusionObjective,
    blind_spot_loss,
    blind_spot_variance_loss,
    distillation,
    recorrupted,
)
from stillscan.models.training.noisy_images import NoisyBatch, NoisyImage, draw_noisy_batches

MEAN_SHARE = 0.8  # share of the steps of stage 1 that train the mean
VARIANCE_RATE = 10.0  # factor on the rate for two 1x1 layers on fixed features
DRAWN_AHEAD = 8  # number of batches drawn in advance, by as many threads


@dataclass(frozen=True)
class StagePlan:
    """Length and batch size of a training stage.

    Attributes:
        steps: total number of updates.
        batch: patches in an update on each rank.
        patch: height and width in pixels; divisible by 8.
        learning_rate: highest learning rate.
    """

    steps: int
    batch: int = 12
    patch: int = 64
    learning_rate: float = 1e-3


def train_blind_spot(
    training: Training, images: Sequence[NoisyImage], plan: StagePlan, seed: int
) -> Iterator[Step]:
    """Train stage 1; `training.network` is a BlindSpotNetwork.

    The mean is trained for MEAN_SHARE of the steps; then it is fixed and the variance trained.
    """
    mean_steps = round(MEAN_SHARE * plan.steps)
    mean_plan = replace(plan, steps=mean_steps)
    yield from train_on_noisy(training, images, blind_spot_loss, mean_plan, seed)
    if training.number == mean_steps:  # the moving average is kept
        training.network.load_state_dict(training.average.state_dict())
    rest = replace(plan, learning_rate=VARIANCE_RATE * plan.learning_rate)
    yield from train_on_noisy(training, images, blind_spot_variance_loss, rest, seed, mean_steps)


def train_diffusion(
    training: Training,
    images: Sequence[NoisyImage],
    blind_spot: BlindSpotNetwork,
    schedule: NoiseSchedule,
    plan: StagePlan,
    seed: int,
) -> Iterator[Step]:
    """Train stage 2; `training.network` is a DiffusionNetwork, the blind spot is fixed."""
    objective = DiffusionObjective(blind_spot, schedule)
    return train_on_noisy(training, images, objective, plan, seed)


def train_one_step(
    training: Training, images: Sequence[NoisyImage], plan: StagePlan, seed: int
) -> Iterator[Step]:
    """Train the one-step candidate, a network like the student, recorrupted-to-recorrupted."""
    return train_on_noisy(training, images, recorrupted, plan, seed)


def distill(
    training: Training, labelled: Sequence[NoisyImage], plan: StagePlan, seed: int
) -> Iterator[Step]:
    """Train stage 3; `training.network` is a StudentNetwork, images have labels."""
    return train_on_noisy(training, labelled, distillation, plan, seed)


def label_images(teacher: Denoiser, images: Sequence[NoisyImage]) -> Iterator[NoisyImage]:
    """Yield every image with the teacher's estimate as its label."""
    for image in images:
        estimate = teacher.denoise(image.pixels[None, None], image.profile)
        yield replace(image, label=estimate.mean[0, 0].clone())


def train_on_noisy(
    training: Training,
    images: Sequence[NoisyImage],
    objective: Objective[NoisyBatch],
    plan: StagePlan,
    seed: int,
    first: int = 0,
) -> Iterator[Step]:
    """Train any objective on patches of noisy images, from the step that `training` has reached.

    With a GPU threads draw the patches in advance; on a CPU they would compete for its cores.
    """
    up = distributed.is_available() and distributed.is_initialized()
    rank, ranks = (distributed.get_rank(), distributed.get_world_size()) if up else (0, 1)
    device = next(training.network.parameters()).device
    batches = draw_noisy_batches(
        images,
        plan.batch,
        seed,
        training.number,
        plan.patch,
        rank,
        ranks,
        ahead=DRAWN_AHEAD if device.type == "cuda" else 0,
    )
    return train(training, batches, objective, plan.steps, plan.learning_rate, first)
