"""The tables of `stillscan evaluate`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stillscan.app.evaluation.summary import LOWEST_VISIBILITY, STUDENT, Group, groups
from stillscan.models.metrics.confidence_intervals import Interval

Record = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A table with the note that is needed to read it."""

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Format the table in GitHub's Markdown."""
        lines = [f"### {self.title}", "", self.note, ""]
        lines += ["| " + " | ".join(self.header) + " |", "|---" * len(self.header) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"


COLUMNS = (
    ("PSNR dB", "psnr", 2, 1.0),
    ("foreground", "psnr_foreground", 2, 1.0),
    ("SSIM", "ssim", 3, 1.0),
    ("GMSD", "gmsd", 4, 1.0),
    ("patch distance /255", "patch_distance", 2, 255.0),
    ("corr(error, noise)", "error_noise_correlation", 2, 1.0),
    ("NPS shift", "mean_frequency_shift", 3, 1.0),
    ("CNR", "cnr", 2, 1.0),
    ("s per 512x512", "seconds", 2, 1.0),
)
PAIRS = (
    ("SRDS", "one step"),
    ("SRDS", "DDIM 20"),
    ("SRDS", "blind spot"),
    ("SRDS", "blind spot + centre"),
    ("SRDS", "published: SRDS"),
    ("distilled", "SRDS"),
    ("distilled", "one step"),
    ("distilled", "supervised"),
    ("recorrupted", "supervised"),
    ("student (oracle noise)", "supervised"),
    ("student", "BM3D (oracle noise)"),
    ("student", "noisy"),
)


def all_tables(records: Sequence[Record]) -> list[Table]:
    """Return every table that these measurements allow."""
    pooled = list(groups(records))
    tables = [*_matrix(records)]
    tables += [_methods(group) for group in pooled]
    tables += [*_pairs(pooled)]
    tables += [_lesions(group) for group in pooled if any(group.lesions.values())]
    tables += [*_coverage(records), *_repeats(records), *_low_contrast(records)]
    return tables


def _matrix(records: Sequence[Record]) -> Iterator[Table]:
    """Yield PSNR and SSIM: a row per domain and noise, a column per method."""
    chosen = [group for group in groups(records, domains=True) if not group.costly]
    methods = list(dict.fromkeys(name for group in chosen for name in group.methods))
    if not chosen:
        return
    rows = []
    for group in chosen:
        cells = [group.domain, group.noise]
        for method in methods:
            there = method in group.methods
            peak = group.mean(method, "psnr") if there else None
            similarity = group.mean(method, "ssim") if there else None
            both = peak is not None and similarity is not None
            cells.append(f"{peak.value:.2f} / {similarity.value:.3f}" if both else "")  # type: ignore[union-attr]
        rows.append(tuple(cells))
    note = "Mean over the slices. The tables below say which methods get the true noise."
    yield Table("PSNR in dB / SSIM", note, ("domain", "noise", *methods), tuple(rows))


def _methods(group: Group) -> Table:
    header = ["method", "conditioning", *(column[0] for column in COLUMNS), f"PSNR - {STUDENT}"]
    rows = []
    for method in group.methods:
        cells = [method, group.methods[method][0]["conditioning"]]
        for _, metric, digits, factor in COLUMNS:
            cells.append(_cell(group.mean(method, metric), digits, factor, ends=metric == "psnr"))
        cells.append(_cell(group.difference(method, STUDENT), 2, ends=True))
        rows.append(tuple(cells))
    note = (
        f"{group.slices} slices of {group.subjects} subjects, the same for all rows; "
        "[95 % interval]. The last column is the mean of differences, slice by slice."
    )
    few = ", costly methods too" if group.costly else ""
    note += " The middle of one slice of each series." if group.costly else ""
    return Table(f"{group.noise}{few}", note, tuple(header), tuple(rows))


def _pairs(found: Sequence[Group]) -> Iterator[Table]:
    """Yield the differences between pairs of methods on the same slices."""
    rows = []
    for group in found:
        for pair in PAIRS:
            if not all(method in group.methods for method in pair):
                continue
            invented = group.difference_of_shares(pair, "invented", "empty_places")
            few = " (middles)" if group.costly else ""
            rows.append(
                (
                    f"{group.noise}{few}",
                    *pair,
                    _cell(group.difference(*pair), 2, ends=True),
                    _cell(invented, 2, 100, ends=True),
                    _cell(group.difference(*pair, "error_noise_correlation"), 2, ends=True),
                    _ratio(group, *pair),
                )
            )
    if rows:
        note = (
            "First minus second, slice by slice; [95 % interval]. Invented: percentage points of "
            "the empty places of the truth."
        )
        header = ("noise", "first", "second", "PSNR dB", "invented", "corr(error, noise)",
                  "time, second / first")  # fmt: skip
        yield Table("Pairs of methods", note, header, tuple(rows))


def _ratio(group: Group, first: str, second: str) -> str:
    """Return the second method's time divided by the first's."""
    quick, slow = group.mean(first, "seconds"), group.mean(second, "seconds")
    return f"{slow.value / quick.value:.1f}" if quick and slow and quick.value > 0 else ""


def _lesions(group: Group) -> Table:
    bins = ((0.0, 3.0), (3.0, LOWEST_VISIBILITY), (LOWEST_VISIBILITY, math.inf))
    counts = [group.lesions_kept(next(iter(group.methods)), *bounds)[1] for bounds in bins]
    header = (
        "method",
        f"kept, v >= 5 ({counts[2]})",
        f"kept, v 3..5 ({counts[1]})",
        f"kept, v < 3 ({counts[0]})",
        "contrast, v >= 5",
        "invented",
        "anatomy erased",
    )
    rows = []
    for method in group.methods:
        kept = [group.lesions_kept(method, *bounds)[0] for bounds in reversed(bins)]
        invented, places = group.share(method, "invented", "empty_places")
        erased, structures = group.share(method, "structures_erased", "structures")
        rows.append(
            (
                method,
                *(_share(each) for each in kept),
                _cell(group.contrast(method), 2, ends=True),
                f"{_share(invented, 2)} of {places}",
                f"{_share(erased, 2)} of {structures}",
            )
        )
    note = (
        "v: visibility of an inserted lesion to a matched filter; kept: at least half of its "
        "contrast is there (what is not kept is erased). Invented: half of a visible lesion where "
        "the truth has none; noise alone does that at about 1 % of the places. Intervals: Wilson. "
        "The definitions are in `app/evaluation/lesions.py`."
    )
    few = ", costly methods too" if group.costly else ""
    return Table(f"Lesions under {group.noise}{few}", note, header, tuple(rows))


def _coverage(records: Sequence[Record]) -> Iterator[Table]:
    cells: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for record in records:
        if record["kind"] == "simulated" and record.get("extent", "whole") == "whole":
            key = (record["domain"], record["noise"], record["method"])
            cells.setdefault(key, []).extend(
                (row["within_one"], row["within_two"])
                for row in record["slices"]
                if "within_one" in row
            )
    rows = [(*key, *_two_shares(pairs)) for key, pairs in cells.items() if pairs]
    if rows:
        note = "Pixels with signal. A normal distribution gives 68.3 % and 95.4 %."
        header = ("domain", "noise", "method", "within 1", "within 2")
        yield Table("Error within one and two estimated deviations", note, header, tuple(rows))


def _two_shares(pairs: Sequence[tuple[float, float]]) -> tuple[str, str]:
    one, two = (statistics.mean(part) for part in zip(*pairs, strict=True))
    return f"{one:.1%}", f"{two:.1%}"


def _repeats(records: Sequence[Record]) -> Iterator[Table]:
    rows = []
    for record in records:
        if record["kind"] != "repeat":
            continue
        slices = record["slices"]
        ratios = [row["after"] / row["before"] for row in slices]
        gains = [row["gain"] for row in slices if row["gain"] is not None]
        covered = [(r["within_one"], r["within_two"]) for r in slices if "within_one" in r]
        rows.append(
            (
                record["scan"],
                record["method"],
                str(len(slices)),
                str(sum(ratio < 1 for ratio in ratios)),
                _mean_of(slices, lambda row: row["before"]),
                _mean_of(slices, lambda row: row["after"]),
                f"{max(ratios):.3f}",
                f"{statistics.mean(gains):+.1f}" if gains else "",
                *(_two_shares(covered) if covered else ("", "")),
            )
        )
    if rows:
        note = (
            "Real noise: each method sees one of two acquisitions and is compared with the other "
            "(RMS difference, stored units). `gain`: own error against the noise, in dB, when half "
            "of the squared difference of the acquisitions is noise of one. `within`: against the "
            "repeat, its noise included. The true noise is not known: rows with oracle noise get "
            "the profile of the series instead, without the gate."
        )
        header = ("scan", "method", "slices", "better", "before", "after", "worst ratio",
                  "gain dB", "within 1", "within 2")  # fmt: skip
        yield Table("Repeated scans", note, header, tuple(rows))


def _low_contrast(records: Sequence[Record]) -> Iterator[Table]:
    rows = []
    for record in records:
        if record["kind"] == "low contrast":
            ours, theirs = (
                Interval(found["mean"], found["low"], found["high"])
                for found in (record["inserted"], record["delivered"])
            )
            discs = " / ".join(f"{each:.2f}" for each in record["inserted"]["discs"])
            dose = f"{record['dose']} %"
            rows.append(
                (
                    dose,
                    record["method"],
                    _cell(ours, 2, ends=True),
                    discs,
                    _cell(theirs, 2, ends=True),
                )
            )
    if rows:
        note = (
            "d' of a channelised Hotelling observer on the simulated CT phantom, mean over four "
            "discs (14 HU 3 mm / 7 HU 5 mm / 5 HU 7 mm / 3 HU 10 mm), jackknife intervals. "
            "`inserted`: the discs at 32 places, with and without in the same noise; `delivered`: "
            "the phantom's own four images against four."
        )
        header = ("dose", "method", "inserted", "each disc", "delivered")
        yield Table("Low-contrast detectability", note, header, tuple(rows))


def _cell(
    interval: Interval | None, digits: int, factor: float = 1.0, *, ends: bool = False
) -> str:
    if interval is None:
        return ""
    if not ends:
        return f"{interval.value * factor:.{digits}f}"
    value, low, high = (
        f"{each * factor:.{digits}f}" for each in (interval.value, interval.low, interval.high)
    )
    return f"{value} [{low}, {high}]"


def _share(interval: Interval, digits: int = 0) -> str:
    if math.isnan(interval.value):
        return ""
    value, low, high = (
        f"{100 * each:.{digits}f}" for each in (interval.value, interval.low, interval.high)
    )
    return f"{value} % [{low}, {high}]"


def _mean_of(rows: Sequence[Record], value: Callable[[Record], float]) -> str:
    return f"{statistics.mean(value(row) for row in rows):.2f}"
