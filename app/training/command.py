"""`stillscan train DATA --out BUNDLE`: from a folder of noisy series to a bundle, resumable."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from stillscan.app.bundles.choice import resolve_device
from stillscan.app.datasets.noisy_folder import read_noisy_folder, split
from stillscan.app.pipeline.output_folder import require_apart
from stillscan.app.training.adaptation import Adaptation, Origin
from stillscan.app.training.console import show_candidates, show_folder, show_release, watching
from stillscan.app.training.curves import Log, open_logs
from stillscan.app.training.ranks import Ranks, process_group
from stillscan.app.training.release import judge
from stillscan.app.training.request import (
    Order,
    begin,
    modalities_of,
    origin_of,
    require_free,
    require_known_modalities,
    told_modality,
)
from stillscan.app.training.run import NOISY, Progress, Run, Trained
from stillscan.app.training.trained_bundle import (
    describe,
    metadata_of,
    publish,
    refuse,
    stage_bundle,
)
from stillscan.models.bundle import load_bundle
from stillscan.models.training.noisy_images import NoisyImage
from stillscan.operators.errors import ExitCode
from stillscan.operators.graph.stages import NO_MEMORY, DenoiserMemoryError
from stillscan.operators.reading.decoder import Decoder

LOG_EVERY = 50  # updates

log = logging.getLogger("stillscan")


def train_bundle(order: Order, decoder: Decoder, console: Console) -> ExitCode:
    """Train and write the bundle.

    Raises:
        SettingsError: if the arguments do not fit together or the output.
        NothingToDoError, InputError: if the images are none to train on.
        ModelError: if device or first weights are not there, or the loss diverges.
        ReleaseRefusedError: if what was made from another bundle may not take its place.
        OutputError: if something cannot be written.
    """
    device = resolve_device(order.device)
    require_apart(order.data, order.out)
    require_free(order)
    origin = origin_of(order)
    if origin is not None and not order.modalities:
        order = replace(order, modalities=origin.info.modalities)
    require_known_modalities(order)
    if origin is not None:  # nothing else may be learned under the bundle's name
        order = replace(order, rules=replace(order.rules, modalities=order.modalities))
    with process_group(device) as ranks:
        if not ranks.speaks:
            console = Console(quiet=True)
        folder = read_noisy_folder(order.data, decoder, order.rules, told_modality(order))
        if origin is None:
            decoder.close()
        modalities = modalities_of(order, folder)
        training, held_out = split(folder.series, order.seed)
        show_folder(console, folder, len(held_out))
        settings = {
            "profile": order.profile_name,
            "seed": order.seed,
            "first_weights": origin.digest if origin else None,
            "ranks": ranks.count,
        }
        if ranks.speaks:
            begin(order, settings | {"images": folder.fingerprint()})
        ranks.wait()
        radius = max(series.profile.radius for series in folder.series)
        run = run_of(order, origin, training, held_out, radius, ranks)
        with deterministic(ranks), naming_memory_faults():
            trained = follow(run, settings, console)
        if ranks.speaks:
            name = order.out.resolve().name
            metadata = metadata_of(
                trained, folder, order.profile, settings, modalities, name, origin
            )
            stage_bundle(trained, metadata, order.staging)
            if origin is not None:
                settle(order, origin, metadata, held_out, device, decoder, console)
            publish(order.staging, order.out)
            report(console, trained, order.out, adapted=order.profile.adapts)
    return ExitCode.DERIVED


def run_of(
    order: Order,
    origin: Origin | None,
    training: Sequence[NoisyImage],
    held_out: Sequence[NoisyImage],
    radius: int,
    ranks: Ranks,
) -> Run:
    """Return all stages from new weights, or the one that adapts a bundle."""
    network = None
    if origin is not None:
        network = load_bundle(origin.info.folder, precision="float32").denoiser.network
    what = (order.folder, order.profile, training, held_out, radius, order.seed, ranks, network)
    if order.profile.adapts:
        return Adaptation(*what, teacher=origin.teacher if origin else None)
    return Run(*what)


def settle(
    order: Order,
    origin: Origin,
    metadata: dict[str, Any],
    held_out: Sequence[NoisyImage],
    device: str,
    decoder: Decoder,
    console: Console,
) -> None:
    """Judge what was staged, write the judgement into its metadata; refused, it is put aside.

    Raises:
        ReleaseRefusedError: if it may not take the place of the bundle that it was made from.
    """
    candidate = order.staging
    found = judge(
        candidate,
        origin.info.folder,
        held_out,
        order.evaluation,
        device,
        decoder,
        order.folder / "evaluation",
    )
    start = {
        "name": origin.info.name,
        "version": origin.info.version,
        "sha256": origin.digest,
    }
    metadata["stillscan"]["release"] = found.for_metadata(start)
    describe(metadata, candidate)
    show_release(console, found)
    if not found.released:
        refuse(candidate, order.folder / "refused", found.reasons)


def follow(run: Run, settings: dict[str, Any], console: Console) -> Trained:
    """Run all stages; show and log how far they are."""
    stages = run.train()
    if not run.ranks.speaks:
        return _last_of(stages, lambda progress: None)
    with open_logs(run.folder, settings) as logs, watching(console, run.profile) as watch:

        def note(progress: Progress) -> None:
            watch(progress)
            write_logs(logs, progress)

        return _last_of(stages, note)


def write_logs(logs: Sequence[Log], progress: Progress) -> None:
    """Loss and learning rate, every LOG_EVERY updates and at the end of a stage."""
    step = progress.step
    if step is None or (step.number % LOG_EVERY and step.number != progress.total):
        return
    for each in logs:
        figures = {"loss": step.loss, "learning_rate": step.learning_rate}
        each.write(progress.stage, step.number, figures)


@contextmanager
def deterministic(ranks: Ranks) -> Iterator[None]:
    """The same sums in the same order, so that a resumed run ends with the same weights."""
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    if ranks.device.type == "cuda":
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


@contextmanager
def naming_memory_faults() -> Iterator[None]:
    """Turn what torch and Python say when memory is short into a `ModelError`."""
    try:
        yield
    except MemoryError as error:
        raise DenoiserMemoryError("not enough memory to train") from error
    except RuntimeError as error:  # torch raises nothing more precise on a CPU
        no_memory = any(words in str(error) for words in NO_MEMORY)
        if isinstance(error, torch.OutOfMemoryError) or no_memory:
            raise DenoiserMemoryError("not enough device memory to train") from error
        raise


def report(console: Console, trained: Trained, out: Path, *, adapted: bool) -> None:
    """What came of it."""
    show_candidates(console, trained.figures, trained.teacher)
    if trained.teacher == NOISY:
        log.warning("no candidate is better than the noisy image: the bundle takes nothing away")
    lines = [f"bundle in {out}; use it with: stillscan denoise IN OUT --models {out}"]
    if not adapted:
        student = trained.figures["student"]
        low, high = student["interval_db"]
        lines.insert(
            0,
            f"student: {student['behind_teacher_db']:+.2f} dB behind its teacher "
            f"({low:+.2f} to {high:+.2f})",
        )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _last_of(
    stages: Generator[Progress, None, Trained], note: Callable[[Progress], None]
) -> Trained:
    """Run a generator to its end; gives what it returns."""
    while True:
        try:
            progress = next(stages)
        except StopIteration as end:
            trained: Trained = end.value
            return trained
        note(progress)
