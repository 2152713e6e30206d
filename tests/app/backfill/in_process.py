"""Back-fill without Ray: one worker in this process; everything else is the real thing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from stillscan.app.backfill.command import Request, Work, backfill
from stillscan.app.backfill.configuration import Configuration
from stillscan.app.backfill.console import OnProgress
from stillscan.app.backfill.pool import Ended
from stillscan.app.backfill.records import Ready
from stillscan.app.backfill.work_items import WorkItem
from stillscan.app.backfill.worker import Worker
from stillscan.app.settings import Mode, load_settings
from stillscan.operators.errors import ExitCode
from stillscan.operators.reading.decoder import Decoder


class InProcess:
    """One worker that does a series when it is given."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._ended: list[Ended] = []
        self.given: list[WorkItem] = []

    @property
    def idle(self) -> int:
        return not self._ended

    @property
    def busy(self) -> int:
        return len(self._ended)

    def give(self, item: WorkItem) -> str:
        token = str(len(self.given))
        self.given.append(item)
        self._ended.append(Ended(item, self._worker.process(item, token)))
        return token

    def wait(self, at_most_s: float) -> list[Ended]:
        ended, self._ended = self._ended, []
        return ended


def in_process(work: Work, progress: OnProgress) -> None:
    """Do the work with a worker here."""
    worker = Worker(work.order)
    ready = worker.prepare(None)
    assert isinstance(ready, Ready)
    work.agree(ready)
    try:
        work.on(InProcess(worker), progress)
    finally:
        worker.close()


def fill(
    source: object,
    dest: object,
    *,
    mode: Mode = "identity",
    environment: Mapping[str, str] | None = None,
    do: Callable[[Work, OnProgress], None] = in_process,
    **options: Any,
) -> tuple[ExitCode, str]:
    """`stillscan backfill`; its exit code and what it printed."""
    settings = load_settings()
    settings = replace(settings, denoise=replace(settings.denoise, mode=mode, device="cpu"))
    request = Request(str(source), str(dest), Configuration(settings), **options)
    printed = StringIO()
    with Decoder() as decoder:
        code = backfill(request, decoder, Console(file=printed, width=200), environment or {}, do)
    return code, printed.getvalue()


def derived_in(dest: Path) -> dict[str, list[str]]:
    """The instances of each derived series folder, by its path in the destination."""
    return {
        str(folder.relative_to(dest)): sorted(file.stem for file in folder.iterdir())
        for folder in sorted(dest.glob("*/*"))
        if not folder.parent.name.startswith(".")
    }
