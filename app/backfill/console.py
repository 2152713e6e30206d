"""Console output of a back-fill: progress, remaining time and the table of outcomes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from stillscan.app.backfill.run import Tally

EVERY_S = 30.0  # interval of progress lines where no bar can be shown
STATES = ("derived", "refused", "not-selected", "failed")
OnProgress = Callable[[], None]


@contextmanager
def listing_shown(console: Console) -> Iterator[Callable[[int], None]]:
    """Show how many entries of the source have been listed."""
    with console.status("listing the source") as status:

        def progress(done: int) -> None:
            status.update(f"listing the source: {done} entries")

        yield progress


@contextmanager
def progress_shown(console: Console, tally: Tally) -> Iterator[OnProgress]:
    """Show a bar on a terminal, otherwise a line at intervals."""
    columns = (TextColumn("{task.description}"), BarColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        task = bars.add_task(progress_line(tally), total=tally.total)
        last = time.monotonic()

        def progress() -> None:
            nonlocal last
            bars.update(task, completed=tally.done, description=progress_line(tally))
            if not console.is_terminal and time.monotonic() - last >= EVERY_S:
                last = time.monotonic()
                console.print(progress_line(tally), soft_wrap=True, highlight=False)

        yield progress


def progress_line(tally: Tally) -> str:
    """Return a line such as `118 of 200 series, 2 failed, 412 an hour, 0:11:56 left`."""
    failed = sum(number for (state, _), number in tally.counts().items() if state == "failed")
    parts = [f"{tally.done} of {tally.total} series"]
    if failed:
        parts.append(f"{failed} failed")
    if tally.per_hour is not None and tally.left_s is not None:
        parts.append(f"{tally.per_hour:.0f} an hour")
        parts.append(f"{timedelta(seconds=round(tally.left_s))} left")
    return ", ".join(parts)


def show_end(console: Console, tally: Tally, skipped: int, table: Path) -> None:
    """Print the outcomes of the series, the speed, and the path of their table."""
    rows = Table(box=None, header_style="bold", pad_edge=False)
    rows.add_column("series")
    rows.add_column("reason")
    rows.add_column("this run", justify="right")
    rows.add_column("before", justify="right")
    both = tally.counts()
    for state, reason in sorted(both, key=lambda key: (STATES.index(key[0]), key[1])):
        now, before = tally.now[state, reason], tally.before[state, reason]
        rows.add_row(state.replace("-", " "), reason, str(now), str(before))
    console.print(rows)
    for line in tally.failures:
        console.print(f"failed {line}", soft_wrap=True, highlight=False)
    console.print(end_line(tally, skipped), soft_wrap=True, highlight=False)
    console.print(f"every series: {table}", soft_wrap=True, highlight=False)


def end_line(tally: Tally, skipped: int) -> str:
    """Return a summary in one line."""
    parts = [f"{tally.done} of {tally.total} series"]
    if tally.per_hour is not None:
        spent = timedelta(seconds=round(tally.seconds))
        parts.append(f"{tally.now.total()} of them in {spent}: {tally.per_hour:.0f} series an hour")
    parts.append(f"{tally.retried} tried again, {tally.killed} workers replaced")
    if skipped:
        parts.append(f"{skipped} files are not DICOM")
    return "; ".join(parts)
