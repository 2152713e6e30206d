"""Summary of measurements: means with 95 % intervals, over the same slices for all rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stillscan.models.metrics.confidence_intervals import (
    Interval,
    bootstrap_mean,
    difference_of_shares,
    wilson,
)

Record = dict[str, Any]
Slice = tuple[str, int]

ALL = "all"
STUDENT = "student"
METRICS = (
    "psnr",
    "psnr_foreground",
    "ssim",
    "gmsd",
    "patch_distance",
    "error_noise_correlation",
    "mean_frequency_shift",
    "cnr",
    "seconds",
)
LOWEST_VISIBILITY = 5.0  # of lesions that must be kept (app/evaluation/lesions.py)


@dataclass(frozen=True)
class Group:
    """The measurements with one noise on the slices that all its methods share.

    Attributes:
        domain: `mr`, `xray`, `ct`, `folder`, or `all`.
        costly: whether these are middles of slices, on which costly methods are measured.
        methods: the methods in the order of the tables, each with one row per slice.
        lesions: the methods with one row per lesion on those slices.
    """

    domain: str
    noise: str
    costly: bool
    methods: dict[str, list[Record]]
    lesions: dict[str, list[Record]]

    @property
    def slices(self) -> int:
        """Number of slices on which each method was measured."""
        return len(next(iter(self.methods.values())))

    @property
    def subjects(self) -> int:
        """Number of subjects to whom the slices belong."""
        return len({row["subject"] for row in next(iter(self.methods.values()))})

    def mean(self, method: str, metric: str) -> Interval | None:
        """Return the mean over the slices, resampling subjects and slices; None if not measured."""
        return _mean(self.methods[method], metric)

    def difference(self, method: str, other: str, metric: str = "psnr") -> Interval | None:
        """Return the mean of the differences, slice by slice."""
        if other not in self.methods or method == other:
            return None
        theirs = {(row["series"], row["slice"]): row for row in self.methods[other]}
        rows = []
        for row in self.methods[method]:
            value, other_value = row.get(metric), theirs[row["series"], row["slice"]].get(metric)
            if value is not None and other_value is not None:
                rows.append(row | {metric: value - other_value})
        return _mean(rows, metric)

    def share(self, method: str, found: str, among: str) -> tuple[Interval, int]:
        """Return the share of places with Wilson's interval, and the number of places."""
        rows = self.methods[method]
        tried = sum(row.get(among, 0) for row in rows)
        return wilson(sum(row.get(found, 0) for row in rows), tried), tried

    def difference_of_shares(
        self, methods: tuple[str, str], found: str, among: str
    ) -> Interval | None:
        """Return the first share minus the second; None if there is no place."""
        counts = [
            tuple(sum(row.get(key, 0) for row in self.methods[method]) for key in (found, among))
            for method in methods
        ]
        if not all(tried for _, tried in counts):
            return None
        return difference_of_shares(counts[0], counts[1])

    def lesions_kept(self, method: str, low: float, high: float) -> tuple[Interval, int]:
        """Return the share of lesions of a visibility that were kept, and the number of lesions."""
        some = [each for each in self.lesions[method] if low <= each["visibility"] < high]
        return wilson(sum(each["share"] >= 0.5 for each in some), len(some)), len(some)

    def contrast(self, method: str) -> Interval | None:
        """Return the mean share of the contrast of the visible lesions."""
        some = [e for e in self.lesions[method] if e["visibility"] >= LOWEST_VISIBILITY]
        return _mean(some, "share")


def groups(records: Sequence[Record], domains: bool = False) -> Iterator[Group]:
    """Yield for each noise (and domain) a group of whole slices and one of middles."""
    simulated = [record for record in records if record["kind"] == "simulated"]
    names = dict.fromkeys(record["noise"] for record in simulated)
    found = dict.fromkeys(record["domain"] for record in simulated) if domains else {ALL: None}
    for domain in found:
        for noise in names:
            for extent in ("whole", "middle"):
                chosen = [
                    record
                    for record in simulated
                    if (record["noise"], record.get("extent", "whole")) == (noise, extent)
                    and domain in (ALL, record["domain"])
                ]
                if chosen:
                    yield _group(domain, noise, extent == "middle", chosen)


def _group(domain: str, noise: str, costly: bool, records: Sequence[Record]) -> Group:
    """Build a group on the slices that all methods share: some networks are for one domain only."""
    seen: dict[str, set[Slice]] = {}
    for record in records:
        of_method = seen.setdefault(record["method"], set())
        of_method |= {(record["series"], row["slice"]) for row in record["slices"]}
    slices = set.intersection(*seen.values())
    if not slices:  # methods of different domains: keep those measured on most slices
        most = max(seen.values(), key=len)
        seen = {method: here for method, here in seen.items() if here == most}
        slices = most
    rows: dict[str, list[Record]] = {method: [] for method in seen}
    lesions: dict[str, list[Record]] = {method: [] for method in seen}
    for record in records:
        if record["method"] not in rows:
            continue
        whose = {key: record[key] for key in ("series", "subject", "domain", "conditioning")}
        for source, target in (("slices", rows), ("lesions", lesions)):
            target[record["method"]] += [
                each | whose
                for each in record[source]
                if (record["series"], each["slice"]) in slices
            ]
    return Group(domain, noise, costly, rows, lesions)


def _mean(rows: Iterable[Record], metric: str) -> Interval | None:
    by_subject: dict[str, list[float]] = {}
    for row in rows:
        value = row.get(metric)
        if value is not None and value == value:  # NaN: no lesion on that slice
            by_subject.setdefault(row["subject"], []).append(value)
    return bootstrap_mean(list(by_subject.values())) if by_subject else None
