"""`stillscan train DATA --out BUNDLE`: from a folder of noisy series to a bundle, resumable."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from app.methods import resolve_device
from app.output_folder import require_apart
from app.training.checkpoints import load_json, save_json
from app.training.console import show_candidates, show_folder, watching
from app.training.errors import OutputHoldsRunError, RunDiffersError, UnknownModalityError
from app.training.logs import Log, open_logs
from app.training.noisy_folder import NoisyFolder, read_noisy_folder, split
from app.training.profiles import TrainingProfile
from app.training.ranks import Ranks, process_group
from app.training.run import NOISY, Progress, Run, Trained
from app.training.trained_bundle import metadata_of, write_bundle
from models.bundle import METADATA, WEIGHTS, BundleError, load_bundle
from models.student import StudentNetwork
from operators.decoding import Decoder
from operators.errors import ExitCode, ModelError
from operators.output_faults import naming_output_faults
from operators.selection import SelectionRules
from operators.stages import NO_MEMORY, DenoiserMemoryError

RUN = ".training"
LOG_EVERY = 50  # updates

log = logging.getLogger("stillscan")


@dataclass(frozen=True)
class Order:
    """What the person asked for.

    Attributes:
        data: folder of noisy images.
        out: of the bundle; the run's own files lie in `out/.training`.
        profile_name: for messages and the bundle.
        profile: how to train.
        rules: which DICOM series are chosen.
        modalities: that the bundle shall serve; empty: those of the DICOM series.
        seed: of first weights and examples.
        device: "auto", "cpu" or "cuda".
        resume: go on with the run that `out` holds.
        start: a bundle whose weights the student begins with.
    """

    data: Path
    out: Path
    profile_name: str
    profile: TrainingProfile
    rules: SelectionRules
    modalities: tuple[str, ...] = ()
    seed: int = 0
    device: str = "auto"
    resume: bool = False
    start: Path | None = None

    @property
    def folder(self) -> Path:
        """Of checkpoints, labels and logs."""
        return self.out / RUN


def train_bundle(order: Order, decoder: Decoder, console: Console) -> ExitCode:
    """Train and write the bundle.

    Raises:
        SettingsError: if the arguments do not fit together or the output.
        NothingToDoError, InputError: if the images are none to train on.
        ModelError: if device or first weights are not there, or the loss diverges.
        OutputError: if something cannot be written.
    """
    device = resolve_device(order.device)
    require_apart(order.data, order.out)
    require_free(order)
    require_known_modalities(order)
    start, start_digest = first_weights(order.start)
    with process_group(device) as ranks:
        if not ranks.speaks:
            console = Console(quiet=True)
        folder = read_noisy_folder(order.data, decoder, order.rules, told_modality(order))
        decoder.close()
        modalities = modalities_of(order, folder)
        training, held_out = split(folder.series, order.seed)
        show_folder(console, folder, len(held_out))
        settings = {
            "profile": order.profile_name,
            "seed": order.seed,
            "first_weights": start_digest,
            "ranks": ranks.count,
        }
        if ranks.speaks:
            begin(order, settings | {"images": folder.fingerprint()})
        ranks.wait()
        radius = max(series.profile.radius for series in folder.series)
        run = Run(order.folder, order.profile, training, held_out, radius, order.seed, ranks, start)
        with deterministic(ranks), naming_memory_faults():
            trained = follow(run, settings, console)
        if ranks.speaks:
            name = order.out.resolve().name
            metadata = metadata_of(trained, folder, order.profile, settings, modalities, name)
            write_bundle(trained, metadata, order.folder / "bundle", order.out)
            report(console, trained, order.out)
    return ExitCode.DERIVED


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


def require_free(order: Order) -> None:
    """Refuse an output that holds something which nobody said should go on.

    Raises:
        OutputHoldsRunError: if there is a run or a bundle and `--resume` was not given.
    """
    if order.resume:
        return
    if (order.folder / "run.json").exists():
        raise OutputHoldsRunError(
            f"{order.out} holds a training run: add --resume to go on with it, or name another "
            "output"
        )
    if (order.out / METADATA).exists():
        raise OutputHoldsRunError(f"{order.out} holds a bundle already: name another output")


def begin(order: Order, settings: dict[str, Any]) -> None:
    """Write down what this run is; or check that it is the one that is resumed.

    Raises:
        RunDiffersError: if it is another.
        OutputError: if the output cannot be written.
    """
    described = json.loads(json.dumps(settings | {"plan": asdict(order.profile)}))
    path = order.folder / "run.json"
    if not path.exists():
        with naming_output_faults(f"write into {order.out}"):
            order.folder.mkdir(parents=True, exist_ok=True)
        save_json(described, path)
        return
    known = load_json(path)
    keys = known.keys() | described.keys()
    differ = sorted(key for key in keys if known.get(key) != described.get(key))
    if differ == ["ranks"]:
        log.warning("resumed by another number of processes: the weights will differ a little")
    elif differ:
        raise RunDiffersError(
            f"the run in {order.out} was begun with other {', '.join(differ)}; it can be resumed "
            "with the same images, profile and seed only"
        )


def first_weights(bundle: Path | None) -> tuple[StudentNetwork | None, str | None]:
    """Network and digest of the bundle that the student begins with.

    Raises:
        ModelError: if it cannot be loaded.
    """
    if bundle is None:
        return None, None
    try:
        network = load_bundle(bundle, precision="float32").denoiser.network
    except BundleError as error:
        raise ModelError(str(error)) from error
    return network, hashlib.sha256((bundle / WEIGHTS).read_bytes()).hexdigest()


def told_modality(order: Order) -> str:
    """What files that cannot say it are taken to be: one modality, if only one was told."""
    return order.modalities[0] if len(order.modalities) == 1 else ""


def require_known_modalities(order: Order) -> None:
    """Refuse a modality that the application would never ask a bundle for.

    Raises:
        UnknownModalityError: if there is one.
    """
    for modality in order.modalities:
        if modality not in order.rules.modalities:
            known = ", ".join(order.rules.modalities)
            raise UnknownModalityError(f"--modality {modality}: expected one of {known}")


def modalities_of(order: Order, folder: NoisyFolder) -> tuple[str, ...]:
    """Which modalities the bundle will serve.

    Raises:
        UnknownModalityError: if neither arguments nor images say it.
    """
    found = {series.source.modality for series in folder.series} - {""}
    modalities = order.modalities or tuple(sorted(found))
    if not modalities:
        raise UnknownModalityError(
            "the images do not say which modality they are: add --modality MR (or CT, CR, DX)"
        )
    return modalities


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
        if isinstance(error, torch.OutOfMemoryError) or NO_MEMORY in str(error):
            raise DenoiserMemoryError("not enough device memory to train") from error
        raise


def report(console: Console, trained: Trained, out: Path) -> None:
    """What came of it."""
    show_candidates(console, trained.figures, trained.teacher)
    if trained.teacher == NOISY:
        log.warning("no candidate is better than the noisy image: the bundle takes nothing away")
    student = trained.figures["student"]
    low, high = student["interval_db"]
    lines = [
        f"student: {student['behind_teacher_db']:+.2f} dB behind its teacher "
        f"({low:+.2f} to {high:+.2f})",
        f"bundle in {out}; use it with: stillscan denoise IN OUT --models {out}",
    ]
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
