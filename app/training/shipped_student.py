"""Train the student of the shipped bundles.

`python -m stillscan.app.training.shipped_student --data DATA --out FOLDER`

Resumable after an interruption (`--resume`), reproducible from `--seed`, shows the time left.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import Progress, TextColumn, TimeRemainingColumn

from stillscan.app.datasets.development_data import DOMAIN_WEIGHT, training_images
from stillscan.app.training.checkpoints import load_checkpoint
from stillscan.app.training.checkpoints import save_checkpoint as save_checkpoint
from stillscan.models.bundle import load_bundle
from stillscan.models.networks.quantization import quantized
from stillscan.models.networks.student import StudentNetwork
from stillscan.models.networks.weights import load_network
from stillscan.models.training.int8_training import choose_steps, imitation
from stillscan.models.training.loop import Objective, Training, train
from stillscan.models.training.losses import paired, supervised
from stillscan.models.training.noisy_examples import Batch, TrainingImage, draw_batch

CHECKPOINT_EVERY = 250
SHARES = ",".join(f"{domain}={share}" for domain, share in DOMAIN_WEIGHT.items())
LOOKED_AT = 3  # number of batches that set the first rounding steps of int8


def main(
    data: Annotated[Path, typer.Option(help="folder with `dev` (STILLSCAN_DATA)")],
    out: Annotated[Path, typer.Option(help="folder for checkpoints")],
    steps: Annotated[int, typer.Option(help="total number of updates")] = 20_000,
    batch_size: Annotated[int, typer.Option(help="number of patches in a batch")] = 12,
    learning_rate: Annotated[float, typer.Option(help="highest learning rate")] = 1e-3,
    seed: Annotated[int, typer.Option(help="random seed of weights and training patches")] = 0,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="start with the weights of this bundle, network or checkpoint"),
    ] = None,
    faint: Annotated[float, typer.Option(help="share of examples with faint structures")] = 0.0,
    lesions: Annotated[
        float, typer.Option(help="weight of the loss of lesions; 0: no lesions are inserted")
    ] = 0.0,
    counted_from: Annotated[
        float, typer.Option(help="visibility from which lesions count, less than 5")
    ] = 1.5,
    shares: Annotated[
        str, typer.Option(help="of mr, xray, ct and projections; the rest is procedural")
    ] = SHARES,
    widths: Annotated[str, typer.Option(help="channels at each resolution")] = "48,96,192",
    int8: Annotated[
        bool, typer.Option("--int8", help="imitate the network of --from in int8")
    ] = False,
    resume: Annotated[bool, typer.Option(help="continue from the last checkpoint in OUT")] = False,
) -> None:
    """Train one student on all domains; `out/checkpoint.pt` holds the state for `--resume`."""
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    torch.manual_seed(seed)
    network = StudentNetwork(tuple(map(int, widths.split(","))))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if start is not None:
        network.load_state_dict(_weights(start))
    pairs = (share.split("=") for share in shares.split(","))
    images = training_images(data, seed, {domain: float(share) for domain, share in pairs})
    objective: Objective[Batch] = paired(lesions, counted_from) if lesions else supervised
    if int8:
        if start is None:
            raise typer.BadParameter("--int8 needs --from, the network that it imitates")
        exact, network = network, quantized(network)
        choose_steps(
            network, exact, islice(_batches(images, batch_size, seed, 0, faint), LOOKED_AT)
        )
        objective = imitation(exact)
    training = Training.begin(network, learning_rate)
    if resume:
        load_checkpoint(training, checkpoint)
    batches = _batches(images, batch_size, seed, training.number, faint)
    unit = "lost" if int8 else "of the noise left"
    mean, started = 0.0, time.monotonic()
    with (
        Progress(
            *Progress.get_default_columns()[:-1],
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}"),
        ) as bar,
        (out / "log.csv").open("a") as log,
    ):
        task = bar.add_task("student", total=steps, completed=training.number, loss="")
        for step in train(training, batches, objective, steps, learning_rate):
            mean = 0.99 * mean + 0.01 * step.loss if step.number > 1 else step.loss
            bar.update(task, completed=step.number, loss=f"{mean:.2f} dB {unit}")
            if step.number % CHECKPOINT_EVERY == 0 or step.number == steps:
                seconds = time.monotonic() - started
                log.write(f"{step.number},{mean:.4f},{step.learning_rate:.2e},{seconds:.0f}\n")
                log.flush()
                save_checkpoint(training, checkpoint)


def _weights(start: Path) -> dict[str, torch.Tensor]:
    """Load the weights of a bundle's student, of a network, or averaged ones of a checkpoint."""
    if start.is_dir():
        return load_bundle(start).denoiser.network.state_dict()
    if start.suffix == ".safetensors":
        return load_network(start).state_dict()
    return dict(torch.load(start, weights_only=True)["average"])


def _batches(
    images: list[TrainingImage], size: int, seed: int, number: int, faint: float
) -> Iterator[Batch]:
    while True:
        yield draw_batch(images, size, seed, number, faint)
        number += 1


if __name__ == "__main__":
    typer.run(main)
