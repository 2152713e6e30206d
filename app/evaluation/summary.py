"""From measurements to figures: means with 95 % intervals, over the same slices for all rows."""

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
    """What was measured with one noise on the slices that all its methods share.

    Attributes:
        domain: `mr`, `xray`, `ct`, `folder`, or `all`.
        costly: whether these are the middles of slices that costly methods are measured on.
        methods: in the order of the tables, each with its rows: one per slice.
        lesions: the same for the lesions on those slices.
    """

    domain: str
    noise: str
    costly: bool
    methods: dict[str, list[Record]]
    lesions: dict[str, list[Record]]

    @property
    def slices(self) -> int:
        """How many each method was measured on."""
        return len(next(iter(self.methods.values())))

    @property
    def people(self) -> int:
        """Whose they are."""
        return len({row["person"] for row in next(iter(self.methods.values()))})

    def mean(self, method: str, metric: str) -> Interval | None:
        """Mean over the slices; interval by resampling people and slices. None: not measured."""
        return _mean(self.methods[method], metric)

    def difference(self, method: str, other: str, metric: str = "psnr") -> Interval | None:
        """Mean of the differences, slice by slice."""
        if other not in self.methods or method == other:
            return None
        theirs = {(row["subject"], row["slice"]): row for row in self.methods[other]}
        rows = []
        for row in self.methods[method]:
            value, other_value = row.get(metric), theirs[row["subject"], row["slice"]].get(metric)
            if value is not None and other_value is not None:
                rows.append(row | {metric: value - other_value})
        return _mean(rows, metric)

    def share(self, method: str, found: str, among: str) -> tuple[Interval, int]:
        """Share of places with Wilson's interval, and how many there were."""
        rows = self.methods[method]
        tried = sum(row.get(among, 0) for row in rows)
        return wilson(sum(row.get(found, 0) for row in rows), tried), tried

    def difference_of_shares(
        self, methods: tuple[str, str], found: str, among: str
    ) -> Interval | None:
        """Share of the first method minus that of the second; None where there is no place."""
        counts = [
            tuple(sum(row.get(key, 0) for row in self.methods[method]) for key in (found, among))
            for method in methods
        ]
        if not all(tried for _, tried in counts):
            return None
        return difference_of_shares(counts[0], counts[1])

    def lesions_kept(self, method: str, low: float, high: float) -> tuple[Interval, int]:
        """Share of the lesions of a visibility that were kept, and how many there were."""
        some = [each for each in self.lesions[method] if low <= each["visibility"] < high]
        return wilson(sum(each["share"] >= 0.5 for each in some), len(some)), len(some)

    def contrast(self, method: str) -> Interval | None:
        """Mean share of the contrast of the visible lesions."""
        some = [e for e in self.lesions[method] if e["visibility"] >= LOWEST_VISIBILITY]
        return _mean(some, "share")


def groups(records: Sequence[Record], domains: bool = False) -> Iterator[Group]:
    """Per noise (and domain) a group of whole slices, and one of middles with costly methods."""
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
    """On the slices that all methods share: some networks serve one domain only."""
    seen: dict[str, set[Slice]] = {}
    for record in records:
        of_method = seen.setdefault(record["method"], set())
        of_method |= {(record["subject"], row["slice"]) for row in record["slices"]}
    slices = set.intersection(*seen.values())
    if not slices:  # of different domains: those that were measured on most of them
        most = max(seen.values(), key=len)
        seen = {method: here for method, here in seen.items() if here == most}
        slices = most
    rows: dict[str, list[Record]] = {method: [] for method in seen}
    lesions: dict[str, list[Record]] = {method: [] for method in seen}
    for record in records:
        if record["method"] not in rows:
            continue
        whose = {key: record[key] for key in ("subject", "person", "domain", "told")}
        for source, target in (("slices", rows), ("lesions", lesions)):
            target[record["method"]] += [
                each | whose
                for each in record[source]
                if (record["subject"], each["slice"]) in slices
            ]
    return Group(domain, noise, costly, rows, lesions)


def _mean(rows: Iterable[Record], metric: str) -> Interval | None:
    by_person: dict[str, list[float]] = {}
    for row in rows:
        value = row.get(metric)
        if value is not None and value == value:  # NaN: no lesion on that slice
            by_person.setdefault(row["person"], []).append(value)
    return bootstrap_mean(list(by_person.values())) if by_person else None
