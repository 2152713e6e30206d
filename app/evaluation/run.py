"""`stillscan evaluate`: measures each method on each noise and each series, one after the other.

Measurements are appended to a ledger (`measurements.jsonl`); what it holds already, with the same
weights, is not measured again: an interrupted run can be continued, and rows can be added later.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stillscan.app.datasets.repeated_scans import repeats
from stillscan.app.evaluation.images import (
    ReferenceSeries,
    has_development_data,
    middle_of,
    read_reference_series,
)
from stillscan.app.evaluation.low_contrast import doses, has_phantom
from stillscan.app.evaluation.measurements import (
    Extent,
    Record,
    Trial,
    make_trial,
    measure_low_contrast,
    measure_repeat,
    measure_simulated,
)
from stillscan.app.evaluation.methods import Method, choose, peers, students
from stillscan.app.evaluation.networks import networks, teachers
from stillscan.app.evaluation.noise_cases import NAMES, NoiseCase, noise_case
from stillscan.operators.errors import NotWritableError
from stillscan.operators.reading.decoder import Decoder

log = logging.getLogger("stillscan")

LEDGER = "measurements.jsonl"
WITH_LESIONS = 6 / 255  # the lowest sigma at which lesions are inserted
QUICK_NOISES = ("gaussian 6", "gaussian 15", "correlated 1.2 px 15", "poisson 200")
COSTLY_NOISES = ("gaussian 6", "gaussian 15", "gaussian 25", "correlated 1.2 px 15")
COSTLY_SIDE = 160  # pixels: the middle of the middle slice
FORMAT = 2  # format of the records; records of another format are not mixed in


@dataclass(frozen=True)
class Plan:
    """The methods, noises and images to be measured.

    Attributes:
        data: the development data, or a folder of images.
        out: folder for the results.
        model: a bundle, or a folder of bundles, one for each domain.
        compare: other bundles whose students are also measured.
        controls: folder with networks that were trained for comparison.
        noises: names of noises; empty: all.
        methods: names of methods; empty: all.
        slices: maximum number of slices of each series.
        crop: side in pixels of the middle of each slice; None: whole slices.
        real: whether repeated scans and the CT phantom are measured, if the data has them.
        full: whether costly methods are measured on all slices and noises.
    """

    data: Path
    out: Path
    model: Path
    compare: Path | None = None
    controls: Path | None = None
    methods: tuple[str, ...] = ()
    noises: tuple[str, ...] = ()
    slices: int = 4
    crop: int | None = None
    device: str = "cpu"
    real: bool = True
    full: bool = False


@dataclass(frozen=True)
class Step:
    """One finished measurement; `what` contains no patient data."""

    number: int
    total: int
    what: str


@dataclass(frozen=True)
class _Task:
    """One measurement: its key in the ledger, and the function that makes it."""

    key: tuple[Any, ...]
    what: str
    measure: Callable[[], Record | None]


class Ledger:
    """A file of measurements, one line of JSON each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, Record] = {}
        self.torn = False  # whether the last line is incomplete
        if path.exists():
            text = path.read_text(encoding="utf-8")
            self.torn = not text.endswith("\n")
            for line in text.splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:
                    continue  # an incomplete line of an interrupted run
                self.records[entry["key"]] = entry["record"]

    def holds(self, key: tuple[Any, ...]) -> bool:
        """Return whether the measurement was made before; it may have had no result."""
        return _text(key) in self.records

    def add(self, key: tuple[Any, ...], record: Record | None) -> None:
        """Append a measurement to the file."""
        name, entry = _text(key), record or {"kind": "impossible"}
        self.records[name] = entry
        try:
            with self.path.open("a", encoding="utf-8") as file:
                start = "\n" if self.torn else ""
                file.write(start + json.dumps({"key": name, "record": entry}) + "\n")
                self.torn = False
        except OSError as error:
            raise NotWritableError(
                f"{self.path.name} cannot be written: {error.strerror}"
            ) from error

    def of(self, keys: Sequence[tuple[Any, ...]]) -> list[Record]:
        """Return the measurements with these keys that have a result."""
        found = [self.records[_text(key)] for key in keys if self.holds(key)]
        return [record for record in found if record["kind"] != "impossible"]


def _text(key: tuple[Any, ...]) -> str:
    return json.dumps([FORMAT, *key])


class Evaluation:
    """A plan with its images and methods loaded; errors in either are raised before any work.

    Raises:
        StillscanError: a folder is missing or empty, a package is missing, a network cannot be
            loaded, a name is unknown, the results cannot be written.
    """

    def __init__(self, plan: Plan, decoder: Decoder) -> None:
        self.plan = plan
        self.cases = [noise_case(name) for name in plan.noises or NAMES]
        self.methods = choose(_methods(plan), plan.methods)
        self.series = read_reference_series(plan.data, plan.slices, plan.crop, decoder)
        try:
            plan.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NotWritableError(f"{plan.out} cannot be created: {error.strerror}") from error
        self.ledger = Ledger(plan.out / LEDGER)
        self._last: tuple[tuple[str, str, str], Trial] | None = None
        self.tasks = list(self._tasks())

    def run(self) -> Iterator[Step]:
        """Make the measurements that are missing."""
        for number, task in enumerate(self.tasks, start=1):
            if not self.ledger.holds(task.key):
                self.ledger.add(task.key, task.measure())
            yield Step(number, len(self.tasks), task.what)

    @property
    def records(self) -> list[Record]:
        """Return all measurements of this plan."""
        return self.ledger.of([task.key for task in self.tasks])

    def _tasks(self) -> Iterator[_Task]:
        for case in self.cases:
            for series in self.series:
                yield from self._simulated(series, case)
        if self.plan.real and has_development_data(self.plan.data):
            yield from self._repeated()
        if self.plan.real and has_phantom(self.plan.data):
            yield from self._low_contrast()

    def _simulated(self, series: ReferenceSeries, case: NoiseCase) -> Iterator[_Task]:
        """Yield measurements on whole slices and, if there are costly methods, on one middle."""
        plan = self.plan
        for method in self.methods:
            if plan.full or not method.costly:
                yield self._task(series, case, method, "whole", (plan.slices, plan.crop))
        costly = any(method.costly for method in self.methods)
        if costly and not plan.full and (plan.noises or case.name in COSTLY_NOISES):
            for method in self.methods:
                yield self._task(series, case, method, "middle", (COSTLY_SIDE, plan.crop))

    def _task(
        self,
        series: ReferenceSeries,
        case: NoiseCase,
        method: Method,
        extent: Extent,
        sizes: tuple[int | None, ...],
    ) -> _Task:
        few = extent == "middle"
        names = (series.name, case.name, method.name, method.fingerprint)
        key = ("simulated", *names, *sizes, few)
        measure = partial(self._measure_simulated, series, case, method, extent)
        return _Task(key, f"{case.name}, {series.name}, {method.name}", measure)

    def _measure_simulated(
        self, series: ReferenceSeries, case: NoiseCase, method: Method, extent: Extent
    ) -> Record | None:
        return measure_simulated(self._trial(series, case, extent), method, extent)

    def _trial(self, series: ReferenceSeries, case: NoiseCase, extent: Extent) -> Trial:
        """Return the noisy series; only the last one is kept."""
        key = (series.name, case.name, extent)
        if self._last is None or self._last[0] != key:
            seen = middle_of(series, COSTLY_SIDE) if extent == "middle" else series
            strong = case.strength >= 0.99 * WITH_LESIONS
            self._last = (key, make_trial(seen, case, with_lesions=strong))
        return self._last[1]

    def _repeated(self) -> Iterator[_Task]:
        for repeat in repeats(self.plan.data / "dev"):
            for method in self.methods:
                key = ("repeat", repeat.name, repeat.volumes, method.name, method.fingerprint)
                what = f"{repeat.name}, {method.name}"
                yield _Task(key, what, partial(measure_repeat, repeat, method))

    def _low_contrast(self) -> Iterator[_Task]:
        for dose in doses(self.plan.data):
            for method in self.methods:
                if method.costly and not self.plan.full:
                    continue
                key = ("low contrast", dose.percent, method.name, method.fingerprint)
                what = f"CT phantom at {dose.percent} %, {method.name}"
                yield _Task(key, what, partial(measure_low_contrast, dose, method))


def _methods(plan: Plan) -> Iterator[Method]:
    """Yield all rows of this plan; the first two are the noisy image and the student."""
    by_name = {method.name: method for method in peers(plan.methods)}
    yield by_name.pop("noisy")
    yield from students(plan.model, plan.device)
    if plan.compare is not None:
        yield from students(plan.compare, plan.device, f" ({plan.compare.name})")
    yield from by_name.values()
    beside_others = plan.controls is not None
    yield from teachers(plan.model, plan.device, beside_others=beside_others)
    if plan.controls is not None:
        yield from networks(plan.controls, plan.device)
