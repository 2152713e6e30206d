"""Trains every network of the comparison on the same images.

`python -m bench.studies.method --data DATA`

Each noisy image is drawn once (fixed seed, Gaussian noise of 2/255 to 30/255) from the
training subjects of `app/datasets/development_data.py`; every network is trained on these and
nothing else, except `supervised`, which gets the clean images under new noise. They are saved
in OUT; `stillscan evaluate --controls OUT` makes the tables.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import nn

from stillscan.app.datasets.development_data import real_images
from stillscan.app.training.shipped_student import save_checkpoint
from stillscan.models.denoisers.blind_spot import BlindSpotDenoiser
from stillscan.models.denoisers.denoiser import Denoiser
from stillscan.models.denoisers.diffusion import DiffusionDenoiser, Sampling
from stillscan.models.denoisers.student import StudentDenoiser
from stillscan.models.networks.blind_spot import BlindSpotNetwork
from stillscan.models.networks.conditional_diffusion import (
    DEFAULT,
    PAPER,
    DiffusionNetwork,
    Profile,
)
from stillscan.models.networks.student import StudentNetwork
from stillscan.models.networks.weights import load_network, save_network
from stillscan.models.noise import synthesis
from stillscan.models.noise.profile import CORRELATION_LAGS, MAX_LAG, NoiseProfile
from stillscan.models.sampling.schedule import NoiseSchedule
from stillscan.models.training import losses
from stillscan.models.training.loop import Objective, Step, Training, train
from stillscan.models.training.losses import DiffusionObjective, blind_spot_loss
from stillscan.models.training.noisy_examples import Batch, TrainingImage, augment, crop
from stillscan.models.training.noisy_images import NoisyImage
from stillscan.models.training.stages import (
    StagePlan,
    label_images,
    train_blind_spot,
    train_on_noisy,
)
from stillscan.models.training.teacher_choice import choose

WIDTHS = (32, 64, 128)
LEVELS = (2 / 255, 30 / 255)
CHECKPOINT_EVERY = 250
JUDGED = 24  # number of images for the choice of the teacher
SCALES = (1.0, 0.5)
SEED = 0


@dataclass(frozen=True)
class Row:
    """One network of the comparison: its architecture, objective and length of training."""

    build: Callable[[], nn.Module]
    objective: Callable[[Path], Objective[Any]]
    plan: StagePlan
    clean: bool = False


def _student() -> nn.Module:
    return StudentNetwork(WIDTHS).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _one_step(objective: Objective[Any], steps: int = 3000, *, clean: bool = False) -> Row:
    return Row(_student, lambda _: objective, StagePlan(steps), clean)


def _diffusion(profile: Profile, steps: int = 3000) -> Row:
    def build() -> nn.Module:
        network = DiffusionNetwork(profile, WIDTHS)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def objective(out: Path) -> Objective[Any]:
        blind_spot = load_network(out / "blind_spot.safetensors")
        assert isinstance(blind_spot, BlindSpotNetwork)
        return DiffusionObjective(blind_spot, NoiseSchedule.linear())

    return Row(build, objective, StagePlan(steps))


# The same shape of network, the same number of updates on the same patches for every one-step row.
ROWS = {
    "blind_spot": Row(
        lambda: BlindSpotNetwork(0), lambda _: blind_spot_loss, StagePlan(3125, batch=8)
    ),
    "supervised": _one_step(losses.supervised, clean=True),
    "recorrupted": _one_step(losses.recorrupted),
    "diffusion": _diffusion(Profile()),
    "diffusion_centre": _diffusion(DEFAULT),
    "diffusion_published": _diffusion(PAPER),
    "diffusion_leaking": _diffusion(Profile(recorruption=0.0, sees_image=False)),
    "diffusion_blind": _diffusion(Profile(sees_image=False)),
    "sure": _one_step(losses.sure),
    "neighbor2neighbor": _one_step(losses.neighbor2neighbor),
    "noise2void": _one_step(losses.noise2void),
}


def main(
    data: Annotated[Path, typer.Option(envvar="STILLSCAN_DATA", help="folder with `dev`")],
    out: Annotated[Path, typer.Option(help="folder for the networks")] = Path("runs/method"),
    only: Annotated[
        str, typer.Option(help="names of networks, separated by commas; empty: all")
    ] = "",
) -> None:
    """Train the networks that are missing; an interrupted run continues."""
    out.mkdir(parents=True, exist_ok=True)
    clean = real_images(data, SCALES)
    noisy = list(noisy_copies(clean, SEED))
    for name in only.split(",") if only else [*ROWS, "distilled"]:
        if (out / f"{name}.safetensors").exists():
            continue
        if name == "distilled":
            distil_twice(out, clean, noisy)
        else:
            train_row(name, ROWS[name], out, clean, noisy)


def noisy_copies(images: list[TrainingImage], seed: int) -> Iterator[NoisyImage]:
    """Add white noise of its own level to every image, at least twice the image's own noise."""
    generator = torch.Generator().manual_seed(seed)
    for image in images:
        low, high = (math.log(level) for level in LEVELS)
        drawn = math.exp(low + (high - low) * float(torch.rand((), generator=generator)))
        sigma = max(drawn, 2 * image.own_sigma)
        pixels = synthesis.add_gaussian(image.pixels, sigma, generator)
        yield NoisyImage(pixels, white_profile(sigma), image.weight)


def white_profile(sigma: float) -> NoiseProfile:
    """Return the clean images of `noisy_copies`."""
    acf = np.zeros((2 * MAX_LAG + 1, 2 * MAX_LAG + 1))
    acf[MAX_LAG, MAX_LAG] = 1
    return NoiseProfile(sigma, (0.5,), (sigma,), acf, "gaussian")


def clean_batches(images: list[TrainingImage], plan: StagePlan, number: int) -> Iterator[Batch]:
    """Yield clean patches with new noise of the same kind, for the supervised bound."""
    weights = torch.tensor([image.weight for image in images])
    low, high = (math.log(level) for level in LEVELS)
    while True:
        generator = torch.Generator().manual_seed((SEED << 32) + number)
        chosen = [
            images[int(i)]
            for i in torch.multinomial(weights, plan.batch, generator=generator, replacement=True)
        ]
        patches = [
            augment(crop(i.pixels[None], generator)[:, : plan.patch, : plan.patch], generator)
            for i in chosen
        ]
        x = torch.stack(patches)
        drawn = (low + (high - low) * torch.rand(plan.batch, generator=generator)).exp()
        own = torch.tensor([2 * image.own_sigma for image in chosen])
        sigma = torch.maximum(drawn, own)[:, None, None, None].expand_as(x)
        n = sigma * torch.randn(x.shape, generator=generator)
        yield Batch(x + n, n, sigma, torch.zeros(plan.batch, len(CORRELATION_LAGS)))
        number += 1


def train_row(
    name: str, row: Row, out: Path, clean: list[TrainingImage], noisy: list[NoisyImage]
) -> None:
    """Train one network to its end, with a log and a checkpoint beside it."""
    torch.manual_seed(SEED)
    training = Training.begin(row.build(), row.plan.learning_rate)
    checkpoint = out / f"{name}.pt"
    if checkpoint.exists():
        training.load_state_dict(torch.load(checkpoint, weights_only=True))
    objective, plan = row.objective(out), row.plan
    started, mean = time.process_time(), float("nan")
    steps: Iterator[Step]
    if row.clean:
        batches = clean_batches(clean, plan, training.number)
        steps = train(training, batches, objective, plan.steps, plan.learning_rate)
    elif name == "blind_spot":
        steps = train_blind_spot(training, noisy, plan, SEED)
    else:
        steps = train_on_noisy(training, noisy, objective, plan, SEED)
    for step in steps:
        mean = step.loss if math.isnan(mean) else 0.99 * mean + 0.01 * step.loss
        if step.number % CHECKPOINT_EVERY == 0:
            print(
                f"{name} {step.number} {mean:.4f} {time.process_time() - started:.0f} s", flush=True
            )
            save_checkpoint(training, checkpoint)
    save_network(training.average, out / f"{name}.safetensors")


def candidates(out: Path) -> dict[str, Denoiser]:
    """Return the teachers that a student may be trained by, the simplest first."""
    blind_spot, network, one = (
        load_network(out / f"{name}.safetensors")
        for name in ("blind_spot", "diffusion", "recorrupted")
    )
    assert isinstance(blind_spot, BlindSpotNetwork)
    assert isinstance(network, DiffusionNetwork)
    assert isinstance(one, StudentNetwork)
    diffusion = DiffusionDenoiser(blind_spot, network, NoiseSchedule.linear())
    return {
        "blind spot + centre": BlindSpotDenoiser(blind_spot),
        "recorrupted": StudentDenoiser(one),
        "one step": diffusion.sampled(Sampling("one_step")),
        "one step x 8": diffusion.sampled(Sampling("one_step", recorruptions=8)),
        "SRDS": diffusion.sampled(Sampling("srds", steps=10)),
        "SRDS x 4": diffusion.sampled(Sampling("srds", steps=10, recorruptions=4)),
    }


def distil_twice(out: Path, clean: list[TrainingImage], noisy: list[NoisyImage]) -> None:
    """Stage 3, as `stillscan.app.training.run` does it.

    The first round learns from the teacher that the clean-free criterion chooses, and begins with
    its weights where it is a student's network; the second learns from labels of the first, and
    begins with its weights.
    """
    teachers = candidates(out)
    sample = noisy[:: max(1, len(noisy) // JUDGED)]
    chosen, table = choose(teachers, sample, SEED)
    found = {"chosen": chosen, "images": len(sample), "table": [asdict(line) for line in table]}
    (out / "candidates.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(f"teacher: {chosen}", flush=True)
    start = chosen if chosen == "recorrupted" else None
    first = _taught(start, out)
    train_row("distilled_once", first, out, clean, list(label_images(teachers[chosen], noisy)))
    network = load_network(out / "distilled_once.safetensors")
    assert isinstance(network, StudentNetwork)
    labelled = list(label_images(StudentDenoiser(network), noisy))
    train_row("distilled", _taught("distilled_once", out), out, clean, labelled)


def _taught(start: str | None, out: Path) -> Row:
    """Return a round of distillation that begins with the weights of another row."""

    def build() -> nn.Module:
        network = _student()
        if start is not None:
            network.load_state_dict(load_network(out / f"{start}.safetensors").state_dict())
        return network

    return replace(_one_step(losses.distillation), build=build)


if __name__ == "__main__":
    typer.run(main)
