"""Console output of a training run: images found, progress, results."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from stillscan.app.datasets.noisy_folder import NoisyFolder
from stillscan.app.datasets.noisy_series import NoisySeries
from stillscan.app.pipeline.console import short_uid
from stillscan.app.training.profiles import TrainingProfile
from stillscan.app.training.release import Release
from stillscan.app.training.run import SECOND_ROUND, STAGES, Progress
from stillscan.models.training.stages import StagePlan
from stillscan.operators.reading.read_series import Refusal
from stillscan.operators.report.outcome import counted

SERIES_SHOWN = 40
REFUSED_SHOWN = 20
LINE_EVERY_S = 30.0
# time of a patch of 64 x 64 in one update, relative to the student's network
COST = {
    "blind spot": 6.5,
    "diffusion": 3.2,
    "one step": 1.0,
    "student": 1.0,
    "second student": 1.0,
}
SHORT_STAGES = 0.04  # teacher, labels: each as a share of the other stages


def show_folder(console: Console, folder: NoisyFolder, held_out: int) -> None:
    """Show the series that will be used, and those that will not with the reason."""
    shown = folder.series[:SERIES_SHOWN]
    if console.is_terminal:
        console.print(_series_table(shown))
    else:
        for series in shown:
            row = zip(COLUMNS, _series_row(series), strict=True)
            _line(console, "; ".join(f"{name} {value}" for name, value in row if value))
    if len(shown) < len(folder.series):
        _line(console, f"... and {len(folder.series) - len(shown)} more series")
    for series in folder.series:
        if series.constant:
            slices = ", ".join(map(str, series.constant))
            _line(console, f"left out of {series.source.name}: constant slices {slices}")
    _show_refused(console, folder.refused)
    if folder.every > 1:
        _line(console, f"the images exceed the memory: only every {folder.every}th slice is used")
    people = counted(folder.subjects, "subject")
    _line(
        console,
        f"{len(folder.series)} series of {people}, {counted(folder.images, 'slice')}; "
        f"{held_out} of them are held out for the choice of the teacher",
    )


def _show_refused(console: Console, refused: Sequence[Refusal]) -> None:
    for each in refused[:REFUSED_SHOWN]:
        _line(console, f"not used ({each.reason}): {each.message}")
    if len(refused) > REFUSED_SHOWN:
        rest = Counter(each.reason for each in refused[REFUSED_SHOWN:])
        reasons = ", ".join(f"{reason} {count}" for reason, count in rest.items())
        _line(console, f"... and {len(refused) - REFUSED_SHOWN} more not used: {reasons}")


COLUMNS = ("series", "modality", "slices", "size", "noise", "radius", "family")


def _series_row(series: NoisySeries) -> tuple[str, ...]:
    source = series.source
    sizes = sorted(set(source.sizes))
    size = " ".join(f"{rows} x {columns}" for rows, columns in sizes[:2])
    return (
        short_uid(source.name) if source.name.replace(".", "").isdigit() else source.name,
        source.modality,
        str(len(series.images)),
        size + (" ..." if len(sizes) > 2 else ""),
        f"{255 * series.profile.sigma:.2f}/255",
        str(series.profile.radius),
        series.profile.family,
    )


def _series_table(series: Sequence[NoisySeries]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in ("slices", "noise", "radius") else "left")
    for each in series:
        table.add_row(*map(Text, _series_row(each)))  # names may look like markup
    return table


class Watch:
    """Shows the progress of a run: bars on a terminal, otherwise a line at intervals."""

    def __init__(self, console: Console, work: Mapping[str, float], bars: Bars) -> None:
        self._console = console
        self._bars = bars
        self._work = work
        self._whole = bars.add_task("whole run", total=sum(self._work.values()), loss="")
        self._stage = bars.add_task("", total=None, loss="")
        self._shown: str | None = None
        self._loss = 0.0
        self._begun: tuple[float, float] | None = None
        self._last_line = 0.0

    def __call__(self, progress: Progress) -> None:
        """Show one more step."""
        new = progress.stage != self._shown
        if new:
            self._shown = progress.stage
            self._bars.reset(self._stage, description=progress.stage, total=progress.total)
        if progress.step is not None:
            first = new or self._loss == 0.0
            loss = progress.step.loss
            self._loss = loss if first else 0.98 * self._loss + 0.02 * loss
        elif new:
            self._loss = 0.0
        done = self._done(progress)
        loss_text = f"loss {self._loss:.4g}" if self._loss else ""
        self._bars.update(self._stage, completed=progress.done, loss=loss_text)
        self._bars.update(self._whole, completed=done)
        if not self._console.is_terminal:
            self._say(progress, done, loss_text, new)

    def _done(self, progress: Progress) -> float:
        stages = list(self._work)
        before = stages[: stages.index(progress.stage)]
        share = progress.done / max(1, progress.total)
        return sum(self._work[stage] for stage in before) + share * self._work[progress.stage]

    def _say(self, progress: Progress, done: float, loss: str, new: bool) -> None:
        now = time.monotonic()
        if self._begun is None:
            self._begun = (now, done)
        ended = progress.done == progress.total
        if not (new or ended) and now - self._last_line < LINE_EVERY_S:
            return
        self._last_line = now
        begun, done_then = self._begun
        left = sum(self._work.values()) - done
        speed = (done - done_then) / max(1e-9, now - begun)
        time_left = f", {left / speed / 60:.0f} min left" if speed > 0 and left > 0 else ""
        figures = f"{progress.done} of {progress.total}{', ' if loss else ''}{loss}"
        _line(self._console, f"{progress.stage}: {figures}{time_left}")


@contextmanager
def watching(console: Console, work: Mapping[str, float]) -> Iterator[Watch]:
    """Show progress and remaining time of the stage and of the whole run.

    Args:
        console: for the output.
        work: of each stage, in order, in an arbitrary unit.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        yield Watch(console, work, bars)


def plans_of(profile: TrainingProfile) -> dict[str, StagePlan]:
    """Return the plans of the stages that train a network."""
    plans = {
        "blind spot": profile.blind_spot,
        "diffusion": profile.diffusion,
        "one step": profile.one_step,
        "student": profile.student,
    }
    return plans | ({"second student": profile.student} if profile.second_round else {})


def work_of(profile: TrainingProfile) -> dict[str, float]:
    """Estimate the work of each stage, in an arbitrary unit."""
    found = {
        stage: COST[stage] * plan.steps * plan.batch * plan.patch**2
        for stage, plan in plans_of(profile).items()
    }
    short = SHORT_STAGES * sum(found.values())
    left_out = () if profile.second_round else SECOND_ROUND
    return {stage: 0.0 if stage in left_out else found.get(stage, short) for stage in STAGES}


def show_candidates(console: Console, figures: Mapping[str, object], teacher: str) -> None:
    """Show the table by which the teacher was chosen, and the student's result."""
    candidates = figures["candidates"]
    assert isinstance(candidates, list)
    for line in candidates:
        low, high = line["interval_db"]
        _line(
            console,
            f"{'teacher' if line['name'] == teacher else 'candidate'} {line['name']}: error "
            f"{line['error_db']:.2f} dB of the noise, {line['behind_db']:+.2f} dB behind the best "
            f"({low:+.2f} to {high:+.2f})",
        )


def show_release(console: Console, found: Release) -> None:
    """Show the table that decided whether a fine-tuned bundle is released."""
    for row in found.table:
        low, high = row.interval_db
        _line(
            console,
            f"{row.measure}: {row.better_db:+.2f} dB ({low:+.2f} to {high:+.2f}) on "
            f"{counted(row.images, 'slice')}: {row.verdict}",
        )


def _line(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)
