"""The grid of "No-New-Denoiser" (Pfaff et al., MICCAI 2024).

`python -m bench.studies.no_new_denoiser`

Does sampling gain anything over the first prediction of the same network? Two experiments, kept
apart:

A, its own setting: supervised, unconditional. Sampling starts from the noisy image itself at the
timestep whose noise matches; the control is the first prediction there.
B, ours: self-supervised, conditioned on the blind-spot estimate. Sampling starts from t = T; the
control is the first prediction there.

Every cell of the grid (schedule x prediction x regularisation) is a network of its own, small and
briefly trained, all alike. Our readings, where the paper's formulas could not be read: the
schedules "constant" and "uniform" are of `sampling/schedule.py`; "regularised" adds the squared
error of z0_hat, weight 1, to the loss.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from jaxtyping import Float
from torch import Generator, Tensor, nn

from bench.studies.method import SCALES, clean_batches, noisy_copies, white_profile
from stillscan.app.datasets.development_data import real_images, subjects
from stillscan.models.denoisers.diffusion import DiffusionDenoiser, Mode, Sampling
from stillscan.models.denoisers.student import pad_to_multiple
from stillscan.models.metrics.image_quality import psnr, ssim
from stillscan.models.metrics.noise_power import patch_distance
from stillscan.models.networks.blind_spot import BlindSpotNetwork
from stillscan.models.networks.conditional_diffusion import DiffusionNetwork, Prediction, Profile
from stillscan.models.networks.precision import mixed_precision
from stillscan.models.networks.unet import PlainUNet
from stillscan.models.networks.weights import load_network
from stillscan.models.noise.synthesis import add_gaussian
from stillscan.models.sampling.samplers import ddim_sample
from stillscan.models.sampling.schedule import SCHEDULES, NoiseSchedule, ScheduleName
from stillscan.models.training.loop import Losses, Training, train
from stillscan.models.training.losses import DiffusionObjective
from stillscan.models.training.noisy_examples import Batch
from stillscan.models.training.stages import StagePlan, train_on_noisy

Planes = Float[Tensor, "batch 1 height width"]

PREDICTIONS: tuple[Prediction, ...] = ("eps", "x0", "v")
WIDTHS, MIDDLE = (16, 32, 64), 1
SIGMA = 15 / 255
STEPS = (1, 5, 20)
CROP = 128  # side of the middle of each test slice, pixels
SEED = 0


@dataclass(frozen=True)
class Cell:
    """One network and one way to use it; means over the test slices."""

    experiment: str
    schedule: ScheduleName
    prediction: Prediction
    regularised: bool
    sampler: str
    steps: int
    psnr: float
    ssim: float
    patch_distance: float


class UnconditionalNetwork(nn.Module):
    """Predicts eps, z_0 or v of a clean image's diffusion from z_t and alpha_bar_t."""

    def __init__(self, prediction: Prediction) -> None:
        super().__init__()
        self.prediction = prediction
        self.multiple = 2 ** len(WIDTHS)
        self.body = PlainUNet(4 + 3, WIDTHS, MIDDLE)
        self.output = nn.Conv2d(WIDTHS[0], 4, 3, padding=1)

    def forward(self, z_t: Planes, alpha_bar: Float[Tensor, " batch"]) -> Planes:
        """Predict z0_hat."""
        a = alpha_bar[:, None, None, None]
        planes = F.pixel_unshuffle(z_t, 2)
        time = torch.cat([((1 - a) / a).log() / 8, a.sqrt(), (1 - a).sqrt()], 1)
        seen = torch.cat([planes, time.expand(-1, -1, *planes.shape[-2:])], 1)
        out = F.pixel_shuffle(self.output(self.body(seen)), 2).float()
        if self.prediction == "x0":
            return out
        if self.prediction == "eps":
            return (z_t - (1 - a).sqrt() * out) / a.sqrt()
        return a.sqrt() * z_t - (1 - a).sqrt() * out


class UnconditionalObjective:
    """The squared error of the predicted quantity at a random timestep, on clean images."""

    def __init__(self, schedule: NoiseSchedule, regularisation: float) -> None:
        self.schedule = schedule
        self.regularisation = regularisation

    def __call__(self, network: nn.Module, batch: Batch) -> Losses:
        """Compute the loss of a batch from its clean images only."""
        assert isinstance(network, UnconditionalNetwork)
        z0 = 2 * (batch.noisy - batch.noise) - 1
        generator = torch.Generator().manual_seed(int(batch.noise.abs().sum() * 1e6))
        t = torch.randint(0, len(self.schedule), (len(z0),), generator=generator)
        alpha_bar = self.schedule.alpha_bar[t].float()
        a = alpha_bar[:, None, None, None]
        z_t = a.sqrt() * z0 + (1 - a).sqrt() * torch.randn(z0.shape, generator=generator)
        with mixed_precision("cpu"):
            error = network(z_t, alpha_bar) - z0
        weight = {"eps": a / (1 - a), "x0": torch.ones_like(a), "v": 1 / (1 - a)}
        loss = (weight[network.prediction] * error.square()).mean()
        return Losses(loss + self.regularisation * error.square().mean(), loss)


def main(
    data: Annotated[Path, typer.Option(envvar="STILLSCAN_DATA", help="folder with `dev`")],
    method: Annotated[
        Path, typer.Option(help="folder of bench.studies.method, with the blind spot")
    ] = Path("runs/method"),
    out: Annotated[Path, typer.Option(help="folder for grid.csv and the plots")] = Path(
        "bench/results"
    ),
    updates: Annotated[
        int, typer.Option(help="updates of each network of B; twice as many in A")
    ] = 250,
    slices: Annotated[int, typer.Option(help="slices of each test subject")] = 2,
) -> None:
    """Train and measure the whole grid; cells in grid.csv are not repeated."""
    out.mkdir(parents=True, exist_ok=True)
    table = out / "grid.csv"
    known = _read(table)
    clean = real_images(data, SCALES)
    noisy = list(noisy_copies(clean, SEED))
    tests = list(_test_pairs(data, slices))
    plan = StagePlan(updates, batch=8, learning_rate=2e-3)
    longer = replace(plan, steps=2 * updates)
    blind_spot = load_network(method / "blind_spot.safetensors")
    assert isinstance(blind_spot, BlindSpotNetwork)
    for schedule, prediction, regularised in itertools.product(
        SCHEDULES, PREDICTIONS, (False, True)
    ):
        key = (schedule, prediction, str(regularised))
        if not any(row[1:4] == list(key) and row[0] == "A" for row in known):
            torch.manual_seed(SEED)
            unconditional = Training.begin(UnconditionalNetwork(prediction), plan.learning_rate)
            objective = UnconditionalObjective(NoiseSchedule.named(schedule), float(regularised))
            batches = clean_batches(clean, longer, 0)
            _finish(train(unconditional, batches, objective, longer.steps, longer.learning_rate))
            ways = _unconditional_ways(unconditional.average, NoiseSchedule.named(schedule))
            _measure(table, ("A", schedule, prediction, regularised), ways, tests)
        if not any(row[1:4] == list(key) and row[0] == "B" for row in known):
            torch.manual_seed(SEED)
            profile = Profile(prediction, preconditioned=False)
            conditional = Training.begin(
                DiffusionNetwork(profile, WIDTHS, MIDDLE), plan.learning_rate
            )
            of_noisy = DiffusionObjective(
                blind_spot, NoiseSchedule.named(schedule), float(regularised)
            )
            _finish(train_on_noisy(conditional, noisy, of_noisy, plan, SEED))
            network = conditional.average
            assert isinstance(network, DiffusionNetwork)
            denoiser = DiffusionDenoiser(blind_spot, network, NoiseSchedule.named(schedule))
            _measure(table, ("B", schedule, prediction, regularised), _ways(denoiser), tests)
    draw(_read(table), out / "grid.png")


def _finish(steps: Iterator[object]) -> None:
    for _ in steps:
        pass


Way = tuple[str, int, Callable[[Planes], Planes]]


def _unconditional_ways(network: nn.Module, schedule: NoiseSchedule) -> Iterator[Way]:
    """Sample from the noisy image at its timestep: one step, then DDIM and DDPM of S steps."""
    assert isinstance(network, UnconditionalNetwork)
    start = schedule.timestep_of_noise(2 * SIGMA)
    first = float(schedule.alpha_bar[start])

    def predict(z: Tensor, a: float) -> Tensor:
        with torch.inference_mode(), mixed_precision("cpu"):
            return network(z, torch.full((len(z),), a))

    def run(y: Planes, steps: int, eta: float) -> Planes:
        padded = pad_to_multiple(y, network.multiple)
        z = math.sqrt(first) * (2 * padded - 1)
        generator = torch.Generator().manual_seed(SEED)
        found = ddim_sample(predict, z, schedule, steps, eta=eta, generator=generator, start=start)
        return (found[..., : y.shape[-2], : y.shape[-1]] + 1) / 2

    yield "one step", 1, lambda y: run(y, 1, 0.0)
    for steps in STEPS[1:]:
        yield "DDIM", steps, lambda y, s=steps: run(y, s, 0.0)  # type: ignore[misc]
        yield "DDPM", steps, lambda y, s=steps: run(y, s, 1.0)  # type: ignore[misc]


def _ways(denoiser: DiffusionDenoiser) -> Iterator[Way]:
    """Sample from t = T: one step, then single samples and SRDS of S steps."""

    def of(mode: Mode, steps: int) -> Callable[[Planes], Planes]:
        used = denoiser.sampled(Sampling(mode, steps))
        return lambda y: used.denoise(y, white_profile(SIGMA)).mean

    yield "one step", 1, of("one_step", 1)
    for steps in STEPS[1:]:
        yield "DDIM", steps, of("sample", steps)
        yield "DDPM", steps, of("stochastic_sample", steps)
        yield "SRDS", steps, of("srds", steps)


def _test_pairs(data: Path, slices: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Middles of the test subjects' slices, clean and noisy."""
    generator: Generator = torch.Generator().manual_seed(SEED)
    for item, images in subjects(data, "test"):
        count = slices if item.domain != "xray" else 2 * slices
        for image in images[:: max(1, len(images) // count)][:count]:
            top, left = ((n - CROP) // 2 for n in image.shape)
            clean = torch.from_numpy(image)[top : top + CROP, left : left + CROP].contiguous()
            yield clean, add_gaussian(clean, SIGMA, generator)


def _measure(
    table: Path,
    key: tuple[str, ScheduleName, Prediction, bool],
    ways: Iterator[Way],
    tests: Sequence[tuple[Tensor, Tensor]],
) -> None:
    for sampler, steps, run in ways:
        found = [(run(noisy[None, None])[0, 0], clean) for clean, noisy in tests]
        values = [
            sum(measure(estimate, clean) for estimate, clean in found) / len(found)
            for measure in (psnr, ssim, patch_distance)
        ]
        cell = Cell(*key, sampler, steps, *values)
        print(*asdict(cell).values(), flush=True)
        new = not table.exists()
        with table.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow([field.name for field in fields(Cell)])
            writer.writerow(asdict(cell).values())


def _read(table: Path) -> list[list[str]]:
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def draw(rows: Sequence[Sequence[str]], path: Path) -> None:
    """Perception (distance of patch laws) against distortion (PSNR), a plot per experiment."""
    import matplotlib as mpl

    mpl.use("Agg")  # no display
    from matplotlib import pyplot as plt

    marks = {"one step": "o", "DDIM": "^", "DDPM": "x", "SRDS": "s"}
    figure, axes = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    for axis, experiment in zip(axes, "AB", strict=True):
        for sampler, mark in marks.items():
            points = [
                (float(row[6]), float(row[8]))
                for row in rows
                if row[0] == experiment and row[4] == sampler and float(row[6]) > 0
            ]
            if points:
                axis.scatter(*zip(*points, strict=True), marker=mark, label=sampler, alpha=0.7)
        axis.set_xlabel("PSNR in dB (distortion)")
        axis.set_ylabel("distance of 8x8 patch laws (perception)")
        axis.set_yscale("log")
        axis.set_title({"A": "A: unconditional, from y", "B": "B: conditional, from T"}[experiment])
        axis.legend()
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    typer.run(main)
