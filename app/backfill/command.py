"""`stillscan backfill`: puts the parts together."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from stillscan.app.backfill.configuration import Configuration
from stillscan.app.backfill.console import Told, listing_shown, progress_shown, show_end
from stillscan.app.backfill.database import FILE, opened_state
from stillscan.app.backfill.destinations import STATE, Destination
from stillscan.app.backfill.errors import NoWorkersError, OutputHoldsBackfillError
from stillscan.app.backfill.index import SeriesIndex
from stillscan.app.backfill.journal import Journal
from stillscan.app.backfill.listing import is_address, list_source, source_of
from stillscan.app.backfill.pool import Pool, ray_at
from stillscan.app.backfill.records import Ready
from stillscan.app.backfill.run import Loop, Tally, Workers, missing
from stillscan.app.backfill.work_items import WorkItem
from stillscan.app.backfill.worker import Order
from stillscan.app.dicomweb.endpoint import Endpoint, authorization_from
from stillscan.app.exit_status import stopping_on_signals
from stillscan.app.pipeline.output_folder import require_apart
from stillscan.operators.errors import ExitCode, SettingsError
from stillscan.operators.reading.decoder import Decoder

log = logging.getLogger("stillscan")

TABLE = "series.csv"
WORKING = "work"
SOURCE_VARIABLES, DEST_VARIABLES = "STILLSCAN_SOURCE", "STILLSCAN_DEST"


@dataclass(frozen=True)
class Request:
    """What is asked for on the command line.

    Attributes:
        source, dest: a folder, a list, or the address of a DICOMweb service.
        archive: address at which the UIDs of a list are.
        state: folder of the record; None for one inside `dest`.
        address: of a Ray cluster; None for a Ray of our own.
        workers: None for as many as there are cores, or GPUs.
        tries: of a series, at most.
    """

    source: str
    dest: str
    configuration: Configuration
    archive: str | None = None
    state: Path | None = None
    resume: bool = False
    address: str | None = None
    workers: int | None = None
    tries: int = 3
    timeout_s: float = 3600.0


@dataclass(frozen=True)
class Work:
    """What is left to do, and what its workers need; `agree` is asked of each before it begins."""

    request: Request
    order: Order
    agree: Callable[[Ready], None]
    loop: Loop
    items: Iterator[WorkItem]

    def on(self, workers: Workers, told: Told) -> None:
        """Do it."""
        self.loop.run(self.items, workers, told)


def backfill(
    request: Request,
    decoder: Decoder,
    console: Console,
    environment: Mapping[str, str] = os.environ,
    do: Callable[[Work, Told], None] | None = None,
) -> ExitCode:
    """Derive what is missing, and say what became of every series of the source.

    Args:
        request: what is asked for.
        decoder: reads headers.
        console: for the person.
        environment: holds the credentials.
        do: brings the work to its end; None for workers on Ray.

    Raises:
        StillscanError: for what concerns the whole run; what is done stays done.
    """
    archive = _archive(request, environment)
    source = source_of(request.source, archive)
    destination = _destination(request, environment)
    for root in source.roots:
        if destination.folder is not None:
            require_apart(root, destination.folder)
    state = _state(request, destination)
    if (state / FILE).exists() and not request.resume:
        raise OutputHoldsBackfillError(f"{state} holds a back-fill; --resume goes on with it")
    digest = request.configuration.digest()
    with opened_state(state) as connection:
        shutil.rmtree(state / WORKING, ignore_errors=True)  # of a run that was killed
        journal = Journal(connection, digest)
        index = SeriesIndex(connection)
        with listing_shown(console) as listed:
            list_source(source, index, decoder, listed)
        tally = Tally(index.count())
        waiting = missing(index.items(), journal, destination.folder, tally)
        first = next(waiting, None)
        if first is not None:  # else no worker is needed
            scratch = (state / WORKING).absolute() if destination.folder else None
            order = Order(request.configuration, destination, archive, scratch)
            loop = Loop(journal, tally, request.tries, partial(_tidy, scratch))
            work = Work(request, order, journal.agree, loop, itertools.chain([first], waiting))
            with progress_shown(console, tally) as told:
                (do or work_on_ray)(work, told)
        journal.write_csv(state / TABLE)
        show_end(console, tally, index.count_skipped(), state / TABLE)
        if tally.stopped:
            log.error("stopped: %s; --resume goes on", tally.stopped)
        elif tally.total == 0:
            log.error("nothing to do: the source holds no series")
    return tally.exit_code()


def work_on_ray(work: Work, told: Told) -> None:
    """Bring the series to an end with workers on Ray.

    Raises:
        NoWorkersError: if there is nothing to work on.
        SettingsError: if there is less to work on than was asked for.
    """
    request = work.request
    device = request.configuration.settings.denoise.device
    with (
        ray_at(request.address, request.workers or len(os.sched_getaffinity(0))) as ray,
        stopping_on_signals(),  # Ray has put a handler of its own there
    ):
        there = ray.cluster_resources()
        gpus, cores = int(there.get("GPU", 0)), int(there.get("CPU", 0))
        gpu = device == "cuda" or (device == "auto" and gpus > 0)
        most = gpus if gpu else cores
        if most < 1:
            raise NoWorkersError(f"Ray has no {'GPU' if gpu else 'core'} to work on")
        workers = request.workers or most
        if workers > most:
            raise SettingsError(
                f"--workers is {workers}; Ray has {most} {'GPUs' if gpu else 'cores'} to work on"
            )
        work.on(Pool(ray, work.order, work.agree, workers, request.timeout_s, gpu=gpu), told)


def _tidy(scratch: Path | None, token: str) -> None:
    """Remove what a killed worker has left; its own folders go when another worker begins."""
    if scratch is not None:
        shutil.rmtree(scratch / token, ignore_errors=True)


def _archive(request: Request, environment: Mapping[str, str]) -> Endpoint | None:
    if is_address(request.source):
        if request.archive is not None:
            raise SettingsError("--archive goes with a list; SOURCE is an archive already")
        url = request.source
    elif request.archive is not None:
        url = request.archive
    else:
        return None
    return Endpoint(url, authorization_from(environment, SOURCE_VARIABLES))


def _destination(request: Request, environment: Mapping[str, str]) -> Destination:
    if is_address(request.dest):
        authorization = authorization_from(environment, DEST_VARIABLES)
        return Destination(archive=Endpoint(request.dest, authorization))
    return Destination(folder=Path(request.dest).absolute())


def _state(request: Request, destination: Destination) -> Path:
    if request.state is not None:
        return request.state
    if destination.folder is None:
        raise SettingsError("DEST is an archive: --state names a folder for the record of the run")
    return destination.folder / STATE
