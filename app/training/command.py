"""`stillscan train DATA --out BUNDLE`: trains a bundle on a folder of noisy series, resumable."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console

from stillscan.app.bundles.choice import resolve_device
from stillscan.app.datasets.noisy_folder import read_noisy_folder, split
from stillscan.app.pipeline.output_folder import require_apart
from stillscan.app.training.adaptation import Adaptation, Origin
from stillscan.app.training.console import (
    show_candidates,
    show_folder,
    show_release,
    watching,
    work_of,
)
from stillscan.app.training.curves import Log, open_logs
from stillscan.app.training.ranks import Ranks, process_group
from stillscan.app.training.release import judge
from stillscan.app.training.request import (
    TrainingRequest,
    begin,
    given_modality,
    modalities_of,
    origin_of,
    require_free,
    require_known_modalities,
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

LOG_EVERY = 50  # number of updates between two log entries

Result = TypeVar("Result")

log = logging.getLogger("stillscan")


def train_bundle(request: TrainingRequest, decoder: Decoder, console: Console) -> ExitCode:
    """Train and write the bundle.

    Raises:
        SettingsError: if the arguments contradict each other or the output.
        NothingToDoError, InputError: if there are no images to train on.
        ModelError: if device or first weights are missing, or the loss diverges.
        ReleaseRefusedError: if a fine-tuned bundle may not replace the one it was made from.
        OutputError: if a file cannot be written.
    """
    device = resolve_device(request.device)
    require_apart(request.data, request.out)
    require_free(request)
    origin = origin_of(request)
    if origin is not None and not request.modalities:
        request = replace(request, modalities=origin.info.modalities)
    require_known_modalities(request)
    if origin is not None:  # a fine-tuned bundle is for the bundle's modalities only
        request = replace(request, rules=replace(request.rules, modalities=request.modalities))
    with process_group(device) as ranks:
        if not ranks.speaks:
            console = Console(quiet=True)
        folder = read_noisy_folder(request.data, decoder, request.rules, given_modality(request))
        if origin is None:
            decoder.close()
        modalities = modalities_of(request, folder)
        training, held_out = split(folder.series, request.seed)
        show_folder(console, folder, len(held_out))
        settings = {
            "profile": request.profile_name,
            "seed": request.seed,
            "first_weights": origin.digest if origin else None,
            "ranks": ranks.count,
        }
        if ranks.speaks:
            begin(request, settings | {"images": folder.fingerprint()})
        ranks.wait()
        radius = max(series.profile.radius for series in folder.series)
        run = run_of(request, origin, training, held_out, radius, ranks)
        with deterministic(ranks), naming_memory_faults():
            trained = follow(run, settings, console)
        if ranks.speaks:
            name = request.out.resolve().name
            metadata = metadata_of(
                trained, folder, request.profile, settings, modalities, name, origin
            )
            stage_bundle(trained, metadata, request.staging)
            if origin is not None:
                settle(request, origin, metadata, held_out, device, decoder, console)
            publish(request.staging, request.out)
            report(console, trained, request.out, adapted=request.profile.adapts)
    return ExitCode.DERIVED


def run_of(
    request: TrainingRequest,
    origin: Origin | None,
    training: Sequence[NoisyImage],
    held_out: Sequence[NoisyImage],
    radius: int,
    ranks: Ranks,
) -> Run:
    """Return a run of all stages from new weights, or the run that fine-tunes a bundle."""
    network = None
    if origin is not None:
        network = load_bundle(origin.info.folder, precision="float32").denoiser.network
    what = (
        request.folder,
        request.profile,
        training,
        held_out,
        radius,
        request.seed,
        ranks,
        network,
    )
    if request.profile.adapts:
        return Adaptation(*what, teacher=origin.teacher if origin else None)
    return Run(*what)


def settle(
    request: TrainingRequest,
    origin: Origin,
    metadata: dict[str, Any],
    held_out: Sequence[NoisyImage],
    device: str,
    decoder: Decoder,
    console: Console,
) -> None:
    """Compare the new bundle with its origin and record the decision; move a refused one aside.

    Raises:
        ReleaseRefusedError: if it may not replace the bundle that it was made from.
    """
    candidate = request.staging
    found = judge(
        candidate,
        origin.info.folder,
        held_out,
        request.evaluation,
        device,
        decoder,
        request.folder / "evaluation",
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
        refuse(candidate, request.folder / "refused", found.reasons)


def follow(run: Run, settings: dict[str, Any], console: Console) -> Trained:
    """Run all stages; show and log their progress."""
    stages = run.train()
    if not run.ranks.speaks:
        return last_of(stages, lambda progress: None)
    with open_logs(run.folder, settings) as logs, watching(console, work_of(run.profile)) as watch:

        def note(progress: Progress) -> None:
            watch(progress)
            write_logs(logs, progress)

        return last_of(stages, note)


def write_logs(logs: Sequence[Log], progress: Progress) -> None:
    """Log loss and learning rate, every LOG_EVERY updates and at the end of a stage."""
    step = progress.step
    if step is None or (step.number % LOG_EVERY and step.number != progress.total):
        return
    for each in logs:
        figures = {"loss": step.loss, "learning_rate": step.learning_rate}
        each.write(progress.stage, step.number, figures)


@contextmanager
def deterministic(ranks: Ranks) -> Iterator[None]:
    """Make sums reproducible, so that a resumed run ends with the same weights."""
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    if ranks.device.type == "cuda":
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


@contextmanager
def naming_memory_faults() -> Iterator[None]:
    """Turn out-of-memory errors of torch and Python into a `ModelError`."""
    try:
        yield
    except MemoryError as error:
        raise DenoiserMemoryError("not enough memory to train") from error
    except RuntimeError as error:  # torch has no narrower class on a CPU
        no_memory = any(words in str(error) for words in NO_MEMORY)
        if isinstance(error, torch.OutOfMemoryError) or no_memory:
            raise DenoiserMemoryError("not enough device memory to train") from error
        raise


def report(console: Console, trained: Trained, out: Path, *, adapted: bool) -> None:
    """Show the result of the training."""
    show_candidates(console, trained.figures, trained.teacher)
    if trained.teacher == NOISY:
        log.warning("no candidate is better than the noisy image: the bundle does not denoise")
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


def last_of(stages: Generator[Progress, None, Result], note: Callable[[Progress], None]) -> Result:
    """Run a generator to its end and return its value."""
    while True:
        try:
            progress = next(stages)
        except StopIteration as end:
            result: Result = end.value
            return result
        note(progress)
