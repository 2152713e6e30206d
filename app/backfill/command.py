"""`stillscan backfill`: connects source, workers, record and destination."""

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
from stillscan.app.backfill.console import OnProgress, listing_shown, progress_shown, show_end
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
    """The arguments of `stillscan backfill`.

    Attributes:
        source, dest: a folder, a list, or the URL of a DICOMweb service.
        archive: DICOMweb URL of the archive that holds the listed UIDs.
        state: folder for the record; None for one inside `dest`.
        address: address of a Ray cluster; None for a local Ray.
        workers: number of workers; None for one per core, or per GPU.
        tries: maximum attempts per series.
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
    """The remaining series and the resources of the workers; `agree` checks each worker first."""

    request: Request
    order: Order
    agree: Callable[[Ready], None]
    loop: Loop
    items: Iterator[WorkItem]

    def on(self, workers: Workers, progress: OnProgress) -> None:
        """Denoise the remaining series."""
        self.loop.run(self.items, workers, progress)


def backfill(
    request: Request,
    decoder: Decoder,
    console: Console,
    environment: Mapping[str, str] = os.environ,
    do: Callable[[Work, OnProgress], None] | None = None,
) -> ExitCode:
    """Denoise the series that are missing and report the outcome of every series.

    Args:
        request: the arguments.
        decoder: decoder for reading headers.
        console: console for progress and result.
        environment: environment variables with the credentials.
        do: processes the work; None for workers on Ray.

    Raises:
        StillscanError: for a fault of the whole run; finished series are kept.
    """
    archive = _archive(request, environment)
    source = source_of(request.source, archive)
    destination = _destination(request, environment)
    for root in source.roots:
        if destination.folder is not None:
            require_apart(root, destination.folder)
    state = _state(request, destination)
    if (state / FILE).exists() and not request.resume:
        raise OutputHoldsBackfillError(f"{state} holds a back-fill; continue it with --resume")
    digest = request.configuration.digest()
    with opened_state(state) as connection:
        shutil.rmtree(state / WORKING, ignore_errors=True)  # left by an interrupted run
        journal = Journal(connection, digest)
        index = SeriesIndex(connection)
        with listing_shown(console) as listed:
            list_source(source, index, decoder, listed)
        tally = Tally(index.count())
        waiting = missing(index.items(), journal, destination.folder, tally)
        first = next(waiting, None)
        if first is not None:  # otherwise no worker is needed
            scratch = (state / WORKING).absolute() if destination.folder else None
            order = Order(request.configuration, destination, archive, scratch)
            loop = Loop(journal, tally, request.tries, partial(_tidy, scratch))
            work = Work(request, order, journal.agree, loop, itertools.chain([first], waiting))
            with progress_shown(console, tally) as progress:
                (do or work_on_ray)(work, progress)
        journal.write_csv(state / TABLE)
        show_end(console, tally, index.count_skipped(), state / TABLE)
        if tally.stopped:
            log.error("stopped: %s; continue with --resume", tally.stopped)
        elif tally.total == 0:
            log.error("nothing to do: the source contains no series")
    return tally.exit_code()


def work_on_ray(work: Work, progress: OnProgress) -> None:
    """Process the series with workers on Ray.

    Raises:
        NoWorkersError: if Ray has no core or GPU.
        SettingsError: if Ray has fewer cores or GPUs than requested workers.
    """
    request = work.request
    device = request.configuration.settings.denoise.device
    with (
        ray_at(request.address, request.workers or len(os.sched_getaffinity(0))) as ray,
        stopping_on_signals(),  # replaces the handlers that Ray has installed
    ):
        there = ray.cluster_resources()
        gpus, cores = int(there.get("GPU", 0)), int(there.get("CPU", 0))
        gpu = device == "cuda" or (device == "auto" and gpus > 0)
        most = gpus if gpu else cores
        if most < 1:
            raise NoWorkersError(f"Ray has no free {'GPU' if gpu else 'core'}")
        workers = request.workers or most
        if workers > most:
            raise SettingsError(
                f"--workers is {workers}; Ray has {most} free {'GPUs' if gpu else 'cores'}"
            )
        work.on(Pool(ray, work.order, work.agree, workers, request.timeout_s, gpu=gpu), progress)


def _tidy(scratch: Path | None, token: str) -> None:
    """Remove the files of a killed worker; another worker removes its own folders."""
    if scratch is not None:
        shutil.rmtree(scratch / token, ignore_errors=True)


def _archive(request: Request, environment: Mapping[str, str]) -> Endpoint | None:
    if is_address(request.source):
        if request.archive is not None:
            raise SettingsError("--archive is for a list; SOURCE is already an archive")
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
        raise SettingsError("DEST is an archive: add --state FOLDER for the record of the run")
    return destination.folder / STATE
