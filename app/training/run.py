"""The stages of a training run, one after the other, resumable.

The results of each stage are stored in the run's folder; a stage that has finished is not trained
again. Checkpoints are written whole, and batch k and label k are pure functions of images and seed,
so that an interrupted run ends with the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from stillscan.app.training.checkpoints import (
    load_checkpoint,
    load_json,
    save_array,
    save_checkpoint,
    save_json,
)
from stillscan.app.training.errors import DivergedError
from stillscan.app.training.profiles import TrainingProfile
from stillscan.app.training.ranks import Ranks
from stillscan.models.denoisers.blind_spot import BlindSpotDenoiser
from stillscan.models.denoisers.denoiser import Denoiser, IdentityDenoiser, Seeded
from stillscan.models.denoisers.diffusion import DiffusionDenoiser, Sampling
from stillscan.models.denoisers.student import StudentDenoiser
from stillscan.models.networks.blind_spot import BlindSpotNetwork
from stillscan.models.networks.conditional_diffusion import DiffusionNetwork
from stillscan.models.networks.precision import computes_bfloat16
from stillscan.models.networks.student import StudentNetwork
from stillscan.models.sampling.schedule import NoiseSchedule
from stillscan.models.training.loop import Step, Training
from stillscan.models.training.noisy_images import NoisyImage
from stillscan.models.training.stages import (
    StagePlan,
    distill,
    label_images,
    train_blind_spot,
    train_diffusion,
    train_one_step,
)
from stillscan.models.training.teacher_choice import behind_db, choose, squared_errors

SECOND_ROUND = ("second labels", "second student")
STAGES = ("blind spot", "diffusion", "one step", "teacher", "labels", "student", *SECOND_ROUND)
SRDS = "SRDS"
RECORRUPTED = "recorrupted"  # the one-step network with the student's architecture
NOISY = "noisy image"  # the first candidate: a teacher must be better than no denoising
SEEDS_OF_A_RUN = 16  # each stage draws its own examples

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Progress:
    """Progress of a stage.

    Attributes:
        stage: one of STAGES.
        done: number of finished updates, images or candidates.
        total: number of all of them.
        step: the last update, if the stage trains a network.
    """

    stage: str
    done: int
    total: int
    step: Step | None = None


def trained_stage(
    stage: str,
    training: Training,
    path: Path,
    steps: Callable[[Training], Iterator[Step]],
    total: int,
    checkpoint_every: int,
    *,
    speaks: bool = True,
) -> Generator[Progress, None, nn.Module]:
    """Train one network to its end, from its checkpoint; return the moving average of its weights.

    Raises:
        DivergedError: if a loss is not finite.
        OutputError: if a checkpoint cannot be written.
    """
    load_checkpoint(training, path)
    yield Progress(stage, training.number, total)
    for step in steps(training):
        if not math.isfinite(step.loss):
            raise DivergedError(
                f"the loss of stage '{stage}' is {step.loss} after update {step.number}"
            )
        if speaks and (step.number % checkpoint_every == 0 or step.number == total):
            save_checkpoint(training, path)
        yield Progress(stage, step.number, total, step)
    return training.average.eval()


@dataclass(frozen=True)
class Trained:
    """The result of a run.

    Attributes:
        teacher: name of the candidate that labelled the student's images.
        best: name of the best candidate on held-out noisy images.
        figures: table of the candidates and the student's result, for the bundle.
        blind_spot, diffusion: networks of the bundle; None if its origin has none.
    """

    student: StudentNetwork
    blind_spot: BlindSpotNetwork | None
    diffusion: DiffusionNetwork | None
    one_step: StudentNetwork
    teacher: str
    best: str
    figures: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A training run: its images, its parameters and its folder.

    Attributes:
        folder: folder of checkpoints and labels.
        training: images for training.
        held_out: images that are only used to choose the teacher.
        radius: radius of the blind spot; covers the noise correlation of every series.
        seed: random seed of weight initialisation and training patches.
        ranks: the processes of the training.
        start: initial weights of the student; None for new ones.
    """

    folder: Path
    profile: TrainingProfile
    training: Sequence[NoisyImage]
    held_out: Sequence[NoisyImage]
    radius: int
    seed: int
    ranks: Ranks
    start: StudentNetwork | None = None

    def train(self) -> Generator[Progress, None, Trained]:
        """Run all stages, or the remaining ones.

        Raises:
            DivergedError: if a loss is not finite.
            OutputError: if a file cannot be written.
        """
        profile, schedule = self.profile, NoiseSchedule.linear()
        blind_spot = yield from self._stage(
            "blind spot",
            lambda: BlindSpotNetwork(
                self.radius, profile.blind_spot_width, profile.blind_spot_blocks
            ),
            profile.blind_spot,
            lambda training, plan, seed: train_blind_spot(training, self.training, plan, seed),
        )
        diffusion = yield from self._stage(
            "diffusion",
            lambda: DiffusionNetwork(profile.condition, profile.widths),
            profile.diffusion,
            lambda training, plan, seed: train_diffusion(
                training, self.training, blind_spot, schedule, plan, seed
            ),
        )
        one_step = yield from self._stage(
            "one step",
            lambda: StudentNetwork(profile.widths),
            profile.one_step,
            lambda training, plan, seed: train_one_step(training, self.training, plan, seed),
        )
        teachers = self._teachers(blind_spot, diffusion, one_step, schedule)
        choice = yield from self._choice(teachers)
        teacher = SRDS if profile.teacher == "srds" else choice["chosen"]
        looks = passes(teacher, profile.steps)
        labelled = yield from self._labels("labels", teachers[teacher], looks)
        student = yield from self._stage(
            "student",
            lambda: self._first_student(one_step if teacher == RECORRUPTED else None),
            profile.student,
            lambda training, plan, seed: distill(training, labelled, plan, seed),
        )
        if profile.second_round:
            student = yield from self._second_round(student)
        figures = choice | {"student": self._student_figures(student, teachers[teacher])}
        return Trained(student, blind_spot, diffusion, one_step, teacher, choice["chosen"], figures)

    def _second_round(self, student: StudentNetwork) -> Generator[Progress, None, StudentNetwork]:
        """Run the second distillation round: the student is trained on its own estimates."""
        own = StudentDenoiser(student, self.ranks.device)
        labelled = yield from self._labels("second labels", own, 1)
        second: StudentNetwork = yield from self._stage(
            "second student",
            lambda: going_on_from(student),
            self.profile.student,
            lambda training, plan, seed: distill(training, labelled, plan, seed),
        )
        return second

    def _stage(
        self,
        stage: str,
        make: Callable[[], Network],
        plan: StagePlan,
        steps: Callable[[Training, StagePlan, int], Iterator[Step]],
    ) -> Generator[Progress, None, Network]:
        """Train one network to its end and return the moving average of its weights."""
        plan = replace(plan, patch=self._patch(plan.patch))
        network = self._made(make, STAGES.index(stage))
        average = yield from trained_stage(
            stage,
            Training.begin(network, plan.learning_rate, self.profile.decay),
            self.folder / f"{stage.replace(' ', '_')}.pt",
            lambda training: steps(training, plan, self._seed(stage)),
            plan.steps,
            self.profile.checkpoint_every,
            speaks=self.ranks.speaks,
        )
        assert isinstance(average, type(network))
        return average

    def _patch(self, wanted: int) -> int:
        """Return the side of patches: as planned, or a multiple of 8 within the smallest image."""
        smallest = min(min(image.pixels.shape) for image in self.training)
        return min(wanted, smallest // 8 * 8)

    def _seed(self, stage: str) -> int:
        return self.seed * SEEDS_OF_A_RUN + STAGES.index(stage)

    def _made(self, make: Callable[[], Network], stage: int) -> Network:
        """Create the network with its initial weights, the same on every rank."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed * SEEDS_OF_A_RUN + stage)
            network = make().to(self.ranks.device)
        device = self.ranks.device
        if isinstance(network, BlindSpotNetwork) and computes_bfloat16(device):
            # torch 2.13's CPU gives NaN gradients for dilated convolutions in bfloat16 there
            return network
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _first_student(self, teacher: StudentNetwork | None = None) -> StudentNetwork:
        """Create the student, with the weights of `start` or of a teacher with its architecture."""
        network = StudentNetwork(self.profile.student_widths)
        start = self.start or teacher
        if start is None or (start is teacher and start.widths != network.widths):
            return network
        return going_on_from(start)

    def _teachers(
        self,
        blind_spot: BlindSpotNetwork,
        network: DiffusionNetwork,
        one_step: StudentNetwork,
        schedule: NoiseSchedule,
    ) -> dict[str, Denoiser]:
        """Return the candidates, the simplest first."""
        device, steps = self.ranks.device, self.profile.steps
        diffusion = DiffusionDenoiser(blind_spot, network, schedule, device=device)
        found: dict[str, Denoiser] = {
            NOISY: IdentityDenoiser(),
            "blind spot + centre": BlindSpotDenoiser(blind_spot, device=device),
            RECORRUPTED: StudentDenoiser(one_step, device=device),
            "one step": diffusion.sampled(Sampling("one_step")),
            SRDS: diffusion.sampled(Sampling("srds", steps=steps)),
        }
        if network.profile.recorruption:
            found["one step x 8"] = diffusion.sampled(Sampling("one_step", recorruptions=8))
            found["SRDS x 4"] = diffusion.sampled(Sampling("srds", steps, recorruptions=4))
        return found

    def _choice(self, teachers: Mapping[str, Denoiser]) -> Generator[Progress, None, Any]:
        """Measure the candidates on held-out noisy images; done once, by one rank."""
        path = self.folder / "teacher.json"
        yield Progress("teacher", 0, 1)
        if self.ranks.speaks and not path.exists():
            images = self._judged()
            chosen, table = choose(teachers, images, self._seed("teacher"))
            found = {"images": len(images), "candidates": [asdict(line) for line in table]}
            save_json({"chosen": chosen} | found, path)
        self.ranks.wait()
        yield Progress("teacher", 1, 1)
        return load_json(path)

    def _judged(self) -> list[NoisyImage]:
        """Return at most `judged` held-out images, the middle of each."""
        every = max(1, len(self.held_out) // self.profile.judged)
        images = self.held_out[::every][: self.profile.judged]
        return [middle(image, self.profile.judged_side) for image in images]

    def _labels(
        self, stage: str, teacher: Denoiser, looks: int
    ) -> Generator[Progress, None, tuple[NoisyImage, ...]]:
        """Return training images with the teacher's estimates; as many as the profile allows."""
        images = thinned(self.training, self.profile.label_pixels // looks)
        folder = self.folder / stage.replace(" ", "_")
        for number, image in enumerate(images):
            path = folder / f"{number:06d}.npy"
            if number % self.ranks.count == self.ranks.rank and not path.exists():
                (labelled,) = label_images(seeded(teacher, number), [image])
                assert labelled.label is not None
                save_array(labelled.label.numpy(), path)
            yield Progress(stage, number + 1, len(images))
        self.ranks.wait()
        labels = (np.load(folder / f"{number:06d}.npy") for number in range(len(images)))
        return tuple(
            replace(image, label=torch.from_numpy(label))
            for image, label in zip(images, labels, strict=True)
        )

    def _student_figures(self, student: StudentNetwork, teacher: Denoiser) -> dict[str, Any]:
        """Compare the student with its teacher by the same criterion on the same images."""
        if not self.ranks.speaks:
            return {}
        images, seed = self._judged(), self._seed("teacher")
        own = squared_errors(StudentDenoiser(student, self.ranks.device), images, seed)
        taught = squared_errors(teacher, images, seed)
        behind = behind_db(own, taught, seed)
        return {"behind_teacher_db": behind.value, "interval_db": behind.ends}


def going_on_from(student: StudentNetwork) -> StudentNetwork:
    """Copy a network with its weights."""
    network = StudentNetwork(student.widths, student.middle_blocks)
    network.load_state_dict(student.state_dict())
    return network


def passes(teacher: str, steps: int) -> int:
    """Return how often a candidate's network processes a pixel."""
    samples = 2 * steps if teacher.startswith(SRDS) else 1
    _, _, times = teacher.partition(" x ")
    return samples * int(times or 1)


def seeded(teacher: Denoiser, number: int) -> Denoiser:
    """Return the teacher with the random numbers of this image."""
    return teacher.seeded((number,)) if isinstance(teacher, Seeded) else teacher


def thinned(images: Sequence[NoisyImage], most_pixels: int) -> Sequence[NoisyImage]:
    """Return all images, or every n-th where they have more than `most_pixels`."""
    pixels = sum(image.pixels.numel() for image in images)
    return images[:: max(1, math.ceil(pixels / most_pixels))]


def middle(image: NoisyImage, side: int) -> NoisyImage:
    """Return the middle of an image, at most `side` pixels wide and high."""
    rows, columns = image.pixels.shape
    top, left = max(0, (rows - side) // 2), max(0, (columns - side) // 2)
    pixels = image.pixels[top : top + side, left : left + side].contiguous()
    return replace(image, pixels=pixels)
