"""Series that arrive in parts, twice, mixed up or damaged: each has one documented outcome.

The table of outcomes is in docs/operations.md; here each is played with a series of its own.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import UID

from bench.pacs.processes import Gateway, wait_until
from bench.pacs.scanner import PATIENT_ID, PATIENT_NAME, Sender, SentSeries, make_series
from bench.robustness.soak.workplace import (
    BrokenPromiseError,
    Figures,
    Workplace,
    has_ended,
    last_job,
    promise,
    sender,
)
from stillscan.deploy.gateway.record.overview import JobRow

SLICES, MATRIX = 6, 64
AT_ONCE = 4
QUIET_S, PATIENCE_S = 2.5, 7.0
BETWEEN_S = 0.8  # gap between slices, shorter than the quiet period


@dataclass
class Ward:
    """The gateway with its input and output."""

    place: Workplace
    gateway: Gateway
    out: Path
    numbers: Iterator[int]

    def series(self, **arguments: object) -> SentSeries:
        """Make a series that was never sent; its header does not state the number of slices."""
        number = next(self.numbers)
        arguments = {"expected": 0, **arguments}
        return make_series(self.folder(number), number, SLICES, MATRIX, **arguments)  # type: ignore[arg-type]

    def folder(self, number: int) -> Path:
        """Return the folder of a series before it is sent."""
        return self.place.folder / "in" / str(number)

    def ended(self, series: SentSeries, revision: int = 1) -> JobRow:
        """Wait for the job of this revision and all its deliveries to end, and return the job."""

        def done() -> bool:
            job = last_job(self.gateway, series.uid)
            return job is not None and job.revision >= revision and has_ended(job)

        wait_until(done, 60, f"revision {revision} of the series ends")
        job = last_job(self.gateway, series.uid)
        assert job is not None, "it has ended"
        deliveries = partial(self.gateway.overview.deliveries, job.number)
        wait_until(
            lambda: all(each.state == "sent" for each in deliveries()), 60, "it is delivered"
        )
        return job

    def sources(self, job: JobRow) -> list[str]:
        """Return the source instances of a derived series that was delivered, by slice."""
        instances = [dcmread(file) for file in (self.out / job.derived_series_uid).glob("*.dcm")]
        instances.sort(key=lambda each: each.InstanceNumber)
        return [each.SourceImageSequence[0].ReferencedSOPInstanceUID for each in instances]

    def require(
        self, job: JobRow, state: str, reason: str = "", sources: tuple[str, ...] = ()
    ) -> None:
        """Check the outcome and the slices of the delivered series."""
        found = f"{job.state} {job.reason} {job.message}"
        promise((job.state, job.reason) == (state, reason), f"{state} {reason}, not {found}")
        if state == "derived":
            promise(tuple(self.sources(job)) == sources, "exactly these slices are delivered")


def partial_series(place: Workplace) -> Figures:
    """Run all cases, some at a time, on one gateway."""
    out = place.folder / "out"
    gateway = place.gateway(
        completeness={"quiet-s": QUIET_S, "settled-s": 0.5, "patience-s": PATIENCE_S},
        destinations=[{"name": "out", "kind": "folder", "folder": str(out)}],
        rules=[{"name": "all", "mode": "identity", "destinations": ["out"]}],
    )
    with gateway:
        ward = Ward(place, gateway, out, itertools.count())
        with ThreadPoolExecutor(AT_ONCE) as pool:
            running = {name: pool.submit(_named, name, case, ward) for name, case in CASES.items()}
            figures: Figures = {name: each.result() for name, each in running.items()}
        derived = {each.derived_series_uid for each in gateway.overview.recent_jobs(1000)}
    promise(not _names_in(gateway), "no log, record or report names a patient")
    there = {folder.name for folder in out.iterdir()}
    promise(there <= derived, "nothing is delivered that no job has derived")
    return figures


def _names_in(gateway: Gateway) -> list[str]:
    """Return files of the gateway, except instances, that contain the patient's name."""
    places = gateway.places
    files = [gateway.log_file, *places.data.glob("gateway.sqlite*"), *places.reports.rglob("*.*")]
    names = [each.encode() for each in (PATIENT_NAME, PATIENT_ID)]
    return [file.name for file in files if any(name in file.read_bytes() for name in names)]


def _named(name: str, case: Callable[[Ward], str], ward: Ward) -> str:
    try:
        return case(ward)
    except (AssertionError, TimeoutError) as error:
        raise BrokenPromiseError(f"{name}: {error}") from error


def _whole(ward: Ward) -> str:
    series = ward.series()
    sender().send(series.files)
    ward.require(ward.ended(series), "derived", sources=series.sop_uids)
    return "derived"


def _one_slice(ward: Ward) -> str:
    series = ward.series()
    sender().send(series.files[:1])
    ward.require(ward.ended(series), "derived", sources=series.sop_uids[:1])
    return "derived: one slice"


def _missing_unknown(ward: Ward) -> str:
    series = ward.series()
    sender().send(series.files[:2] + series.files[3:])
    expected = series.sop_uids[:2] + series.sop_uids[3:]
    ward.require(ward.ended(series), "derived", sources=expected)
    return "derived: the slices that came"


def _missing_known(ward: Ward) -> str:
    series = ward.series(expected=SLICES)
    sender().send(series.files[:2] + series.files[3:])
    ward.require(ward.ended(series), "refused", "series-incomplete")
    return "refused: series-incomplete"


def _missing_then_late(ward: Ward) -> str:
    series = ward.series(expected=SLICES)
    sender().send(series.files[1:])
    ward.require(ward.ended(series), "refused", "series-incomplete")
    sender().send(series.files[:1])
    ward.require(ward.ended(series, 2), "derived", sources=series.sop_uids)
    return "refused, then derived with the late slice as revision 2"


def _missing_and_retried(ward: Ward) -> str:
    series = ward.series(expected=SLICES)
    sender().send(series.files[:-1])
    job = ward.ended(series)
    ward.require(job, "refused", "series-incomplete")
    promise(ward.gateway.overview.retry_job(job.number), "the operator may retry it")
    ward.require(ward.ended(series), "derived", sources=series.sop_uids[:-1])
    return "refused, then derived as it is for the operator"


def _late_within_patience(ward: Ward) -> str:
    series = ward.series(expected=SLICES)
    sender().send(series.files[:-1])
    threading.Event().wait(QUIET_S * 1.3)  # longer than the quiet period, but slices are missing
    promise(last_job(ward.gateway, series.uid) is None, "a series that is short is waited for")
    sender().send(series.files[-1:])
    job = ward.ended(series)
    ward.require(job, "derived", sources=series.sop_uids)
    promise(job.revision == 1, "there is one job")
    return "derived: one job"


def _late(ward: Ward) -> str:
    series = ward.series()
    sender().send(series.files[:-1])
    first = ward.ended(series)
    ward.require(first, "derived", sources=series.sop_uids[:-1])
    sender().send(series.files[-1:])
    second = ward.ended(series, 2)
    ward.require(second, "derived", sources=series.sop_uids)
    promise(second.derived_series_uid != first.derived_series_uid, "a revision has its own UID")
    return "derived twice: revision 2 has the late slice, under another UID"


def _late_in_the_run(ward: Ward) -> str:
    series = ward.series()
    sender().send(series.files[:-1])
    wait_until(lambda: last_job(ward.gateway, series.uid) is not None, 30, "the job is made")
    sender().send(series.files[-1:])
    second = ward.ended(series, 2)
    ward.require(second, "derived", sources=series.sop_uids)
    return "derived twice: what comes during a job is not in it"


def _more_than_said(ward: Ward) -> str:
    series = ward.series(expected=SLICES - 2)
    sender().send(series.files)
    ward.require(ward.ended(series), "derived", sources=series.sop_uids)
    return "derived: all that came"


def _reversed_order(ward: Ward) -> str:
    series = ward.series()
    sender().send(series.files[::-1])
    ward.require(ward.ended(series), "derived", sources=series.sop_uids)
    return "derived: in order"


def _interleaved(ward: Ward) -> str:
    one, other = ward.series(), ward.series()
    sender().send([file for pair in zip(one.files, other.files, strict=True) for file in pair])
    ward.require(ward.ended(one), "derived", sources=one.sop_uids)
    ward.require(ward.ended(other), "derived", sources=other.sop_uids)
    return "derived: each with its own slices"


def _two_senders(ward: Ward) -> str:
    series = ward.series()
    threads = [
        threading.Thread(target=Sender.send, args=(sender(), part))
        for part in (series.files[:4], series.files[2:])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ward.require(ward.ended(series), "derived", sources=series.sop_uids)
    return "derived: once"


def _dripping(ward: Ward) -> str:
    series = ward.series()
    for file in series.files:
        sender().send([file])
        threading.Event().wait(BETWEEN_S)
    job = ward.ended(series)
    ward.require(job, "derived", sources=series.sop_uids)
    promise(job.revision == 1, "gaps shorter than the quiet period make no revisions")
    return "derived: one job"


def _duplicate(ward: Ward) -> str:
    series = ward.series()
    sender().send(series.files[:3])
    sender().send(series.files)
    ward.require(ward.ended(series), "derived", sources=series.sop_uids)
    return "derived: each slice once"


def _duplicate_that_differs(ward: Ward) -> str:
    series = ward.series()
    sender().send(series.files)
    sender().send([_changed(ward, series.files[0], WindowCenter=1, WindowWidth=2)])
    ward.require(ward.ended(series), "derived", sources=series.sop_uids)
    return "derived: each slice once, the newer copy"


def _sent_again(ward: Ward) -> str:
    series = ward.series()
    sender().send(series.files)
    first = ward.ended(series)
    before = ward.gateway.overview.counts().totals.get("jobs_repeated", 0)
    sender().send(series.files)
    wait_until(
        lambda: ward.gateway.overview.counts().totals.get("jobs_repeated", 0) > before,
        30,
        "the repeat is noticed",
    )
    promise(last_job(ward.gateway, series.uid) == first, "there is no second job")
    return "derived once"


def _other_matrix(ward: Ward) -> str:
    series = ward.series()
    changed = _changed(ward, series.files[0], Rows=MATRIX // 2, Columns=MATRIX * 2)
    sender().send([changed, *series.files[1:]])
    ward.require(ward.ended(series), "refused", "mixed-matrix")
    return "refused: mixed-matrix"


def _other_patient(ward: Ward) -> str:
    series = ward.series()
    sender().send([_changed(ward, series.files[0], PatientID="OTHER"), *series.files[1:]])
    ward.require(ward.ended(series), "refused", "identity-conflict")
    return "refused: identity-conflict"


def _damaged(ward: Ward) -> str:
    series = ward.series()
    whole_file = series.files[0].read_bytes()
    series.files[0].write_bytes(whole_file[:-1000])
    sender().send(series.files)
    ward.require(ward.ended(series), "refused", "truncated-file")
    return "refused: truncated-file"


def _our_own(ward: Ward) -> str:
    series = ward.series()
    sender().send(series.files)
    job = ward.ended(series)
    derived = sorted((ward.out / job.derived_series_uid).glob("*.dcm"))
    sender().send(derived)
    again = ward.ended(SentSeries(job.derived_series_uid, (), ()))
    ward.require(again, "not-selected", "already-denoised")
    return "not selected: already-denoised"


def _not_an_image(ward: Ward) -> str:
    series = ward.series()
    changed = _changed(ward, series.files[0], SOPClassUID=UID("1.2.840.10008.5.1.4.1.1.88.22"))
    sender().send([changed])
    ward.require(ward.ended(series), "not-selected", "not-an-image")
    return "not selected: not-an-image"


CASES: dict[str, Callable[[Ward], str]] = {
    "a whole series": _whole,
    "one slice": _one_slice,
    "missing, the header does not say": _missing_unknown,
    "missing, the header says so": _missing_known,
    "missing, then late": _missing_then_late,
    "missing, retried by the operator": _missing_and_retried,
    "late, within the patience": _late_within_patience,
    "late, the header does not say": _late,
    "late, while the job runs": _late_in_the_run,
    "more than the header says": _more_than_said,
    "in reverse order": _reversed_order,
    "two series in turns": _interleaved,
    "from two senders at once": _two_senders,
    "slice by slice, with gaps": _dripping,
    "duplicates": _duplicate,
    "a duplicate that differs": _duplicate_that_differs,
    "the whole series again": _sent_again,
    "a slice of another matrix": _other_matrix,
    "a slice of another patient": _other_patient,
    "a damaged slice": _damaged,
    "our own derived series": _our_own,
    "an object that is no image": _not_an_image,
}


def _changed(ward: Ward, file: Path, **attributes: object) -> Path:
    """Return a copy of a file with other attributes."""
    instance = dcmread(file)
    for keyword, value in attributes.items():
        setattr(instance, keyword, value)
    copy = file.with_name(f"changed-{file.name}")
    instance.save_as(copy)
    return copy
