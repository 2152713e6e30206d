"""Decision whether a fine-tuned bundle may replace the one it was made from.

It is released if it is worse in no comparison and better in at least one, by the tables of
`stillscan evaluate` and by held-out images of the site; otherwise it is refused, with reasons.
Every comparison is decided by its 95 % interval, not by the mean alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from stillscan.app.datasets.errors import RepeatDiffersError
from stillscan.app.datasets.noisy_folder import find_sources
from stillscan.app.datasets.noisy_series import SeriesSource
from stillscan.app.datasets.repeated_scans import Repeat
from stillscan.app.evaluation.images import ReferenceSeries, has_development_data
from stillscan.app.evaluation.measurements import (
    Record,
    make_trial,
    measure_repeat,
    measure_simulated,
)
from stillscan.app.evaluation.methods import Method, students
from stillscan.app.evaluation.noise_cases import noise_case
from stillscan.app.evaluation.run import QUICK_NOISES, Evaluation, Plan
from stillscan.app.evaluation.summary import groups
from stillscan.models.bundle import load_bundle
from stillscan.models.metrics.confidence_intervals import Interval
from stillscan.models.training.dead_leaves import dead_leaves
from stillscan.models.training.noisy_images import NoisyImage
from stillscan.models.training.teacher_choice import behind_db, squared_errors
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.selection import SelectionRules

MARGIN_DB = 0.1  # a difference up to this counts as no worse
PROCEDURAL = 6  # number of procedural images, each a subject of its own
PROCEDURAL_SIDE = 128  # pixels
SEED = 0
FIRST, SECOND = "first", "second"  # folders of a repeated scan
STUDENT, CANDIDATE = "student", "student (candidate)"

Verdict = Literal["better", "no worse", "worse", "not shown"]


@dataclass(frozen=True)
class Row:
    """One comparison of the candidate with its origin.

    Attributes:
        measure: name of the measurement and its images.
        images: number of slices.
        better_db: by how many dB the candidate's error is lower; below 0 where it is higher.
        interval_db: 95 % interval of `better_db`.
    """

    measure: str
    images: int
    better_db: float
    interval_db: tuple[float, float]

    @property
    def verdict(self) -> Verdict:
        """The verdict by the interval; `not shown` if it exceeds the margin on both sides."""
        low, high = self.interval_db
        if low > 0:
            return "better"
        if low >= -MARGIN_DB:
            return "no worse"
        return "worse" if high < 0 else "not shown"


@dataclass(frozen=True)
class Release:
    """The decision and its reasons."""

    released: bool
    reasons: tuple[str, ...]
    table: tuple[Row, ...]

    def for_metadata(self, start: dict[str, Any]) -> dict[str, Any]:
        """Return the section `release` of a bundle's metadata; `start` describes its origin."""
        table = [asdict(row) | {"verdict": row.verdict} for row in self.table]
        return {
            "released": self.released,
            "from": start,
            "reasons": list(self.reasons),
            "margin_db": MARGIN_DB,
            "table": table,
        }


def decide(rows: Sequence[Row]) -> Release:
    """Release the candidate if no row is worse or undecided, and at least one is better."""
    against = []
    for row in rows:
        low, high = row.interval_db
        said = f"{row.better_db:+.2f} dB ({low:+.2f} to {high:+.2f})"
        if not math.isfinite(row.better_db):
            against.append(f"{row.measure}: the result is not a number")
        elif row.verdict == "worse":
            against.append(f"{row.measure}: worse, {said}")
        elif row.verdict == "not shown":
            against.append(f"{row.measure}: not shown to be within {MARGIN_DB} dB, {said}")
    better = [row for row in rows if row.verdict == "better"]
    if not against and not better:
        against.append("nothing gained: no row is better with 95 % certainty")
    if against:
        return Release(False, tuple(against), tuple(rows))
    gains = ", ".join(f"{row.measure} {row.better_db:+.2f} dB" for row in better)
    reasons = (f"no row is worse by more than {MARGIN_DB} dB", f"better: {gains}")
    return Release(True, reasons, tuple(rows))


def judge(
    candidate: Path,
    start: Path,
    held_out: Sequence[NoisyImage],
    evaluation: Path | None,
    device: str,
    decoder: Decoder,
    results: Path,
) -> Release:
    """Compare a candidate with the bundle it was made from.

    Args:
        candidate: folder of the new bundle.
        start: folder of the bundle it was made from.
        held_out: images of the site that were not used in training.
        evaluation: further images: the development data, a folder of images that count as
            the truth, or a repeated scan (folders `first` and `second` with the same series).
        device: torch device of the networks.
        decoder: decoder for DICOM files.
        results: folder for the measurements.

    Raises:
        StillscanError: as `stillscan evaluate`.
    """
    rows = [_held_out(candidate, start, held_out, device)]
    pair = [*_pair(start, candidate, device)]
    if evaluation is None:
        rows += _simulated(_procedural(pair))
    elif (evaluation / FIRST).is_dir() and (evaluation / SECOND).is_dir():
        rows += _simulated(_procedural(pair))
        rows += _repeated(_measured(own_repeats(evaluation, decoder), pair))
    else:
        rows += _evaluated(candidate, start, evaluation, device, decoder, results)
    return decide(rows)


def _pair(start: Path, candidate: Path, device: str) -> Iterator[Method]:
    """Yield both students as in the application: blind, with the quality gate."""
    yield next(students(start, device))
    yield next(students(candidate, device, CANDIDATE.removeprefix(STUDENT)))


def _held_out(candidate: Path, start: Path, images: Sequence[NoisyImage], device: str) -> Row:
    """Compare by recorrupted pairs, which need no clean image (`training/teacher_choice.py`)."""
    before, after = (
        squared_errors(load_bundle(each, device, "float32").denoiser, images, SEED)
        for each in (start, candidate)
    )
    better = behind_db(before, after, SEED)
    return _row("held-out images of the site, recorrupted pairs", len(images), better)


def _procedural(pair: Sequence[Method]) -> Iterator[Record]:
    """Measure simulated noise on procedural images: earlier abilities must not be lost."""
    rng = np.random.default_rng(SEED)
    for number in range(PROCEDURAL):
        name = f"dead leaves {number}"
        plane = torch.from_numpy(dead_leaves(PROCEDURAL_SIDE, rng))
        series = ReferenceSeries(name, name, "folder", plane[None])
        for noise in QUICK_NOISES:
            trial = make_trial(series, noise_case(noise), with_lesions=False)
            for method in pair:
                record = measure_simulated(trial, method)
                assert record is not None
                yield record


def _simulated(records: Iterator[Record] | Sequence[Record]) -> Iterator[Row]:
    """Compare the PSNR, slice by slice, one row for each noise."""
    for group in groups(list(records)):
        difference = group.difference(CANDIDATE, STUDENT)
        if difference is not None:
            measure = f"simulated noise: {group.noise}"
            yield _row(measure, group.slices, difference)


def _repeated(records: Iterator[Record] | Sequence[Record]) -> Iterator[Row]:
    """Compare the error against the independent repeat, one row for each scan."""
    by_scan: dict[str, dict[str, Record]] = {}
    for record in records:
        by_scan.setdefault(record["scan"], {})[record["method"]] = record
    for scan, found in by_scan.items():
        before, after = (_own_errors(found[name]) for name in (STUDENT, CANDIDATE))
        yield _row(f"independent repeat: {scan}", len(before), behind_db(before, after, SEED))


def _own_errors(record: Record) -> torch.Tensor:
    """Return the squared error of each slice beyond the repeat's noise, over that noise."""
    noise = torch.tensor([row["before"] ** 2 / 2 for row in record["slices"]])
    after = torch.tensor([row["after"] ** 2 for row in record["slices"]])
    return (after - noise) / noise


def _measured(found: Iterator[Repeat], pair: Sequence[Method]) -> Iterator[Record]:
    for repeat in found:
        for method in pair:
            record = measure_repeat(repeat, method)
            assert record is not None
            yield record


def _evaluated(
    candidate: Path, start: Path, data: Path, device: str, decoder: Decoder, results: Path
) -> Iterator[Row]:
    """Yield the rows of `stillscan evaluate DATA --models START --compare CANDIDATE --quick`."""
    plan = Plan(
        data=data,
        out=results,
        model=start,
        compare=candidate,
        methods=(STUDENT,),
        noises=QUICK_NOISES,
        slices=1,
        device=device,
        real=has_development_data(data),
    )
    evaluation = Evaluation(plan, decoder)
    for _ in evaluation.run():
        pass
    named = {f"{STUDENT} ({candidate.name})": CANDIDATE}
    records = [
        record | {"method": named.get(record["method"], record["method"])}
        for record in evaluation.records
    ]
    yield from _simulated(records)
    both = (STUDENT, CANDIDATE)
    yield from _repeated(
        [each for each in records if each["kind"] == "repeat" and each["method"] in both]
    )


def own_repeats(folder: Path, decoder: Decoder) -> Iterator[Repeat]:
    """Yield the series of `first` with the same series of `second`, matched by their order.

    Raises:
        RepeatDiffersError: if they do not match.
    """
    pairs = [find_sources(folder / part, decoder, SelectionRules())[0] for part in (FIRST, SECOND)]
    ordered = [sorted(sources, key=lambda source: source.name) for sources in pairs]
    if len(ordered[0]) != len(ordered[1]) or not ordered[0]:
        raise RepeatDiffersError(
            f"{FIRST} holds {len(ordered[0])} series, {SECOND} {len(ordered[1])}: expected the "
            "same, scanned twice"
        )
    for number, (one, other) in enumerate(zip(*ordered, strict=True), start=1):
        if one.sizes != other.sizes or len(set(one.sizes)) != 1:
            raise RepeatDiffersError(
                f"series {number} of {FIRST} and {SECOND} differ in slices or their size"
            )
        yield Repeat(f"series {number}", _stack(one), _stack(other))


def _stack(source: SeriesSource) -> np.ndarray:
    return np.stack([pixels for pixels, _ in source.read(range(len(source.sizes)))])


def _row(measure: str, images: int, difference: Interval) -> Row:
    return Row(measure, images, difference.value, difference.ends)
