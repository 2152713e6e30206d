"""Field test: what becomes of every folder of a directory, in one table.

    python -m bench.field DATA/field        (shipped settings; also of use: dev/dicom, bad)

Every folder that holds files is a case, and so is every file beside folders. Each goes through
`inspect` and `denoise`. Of what was derived the table says: new errors of dciodvfy and dcentvfy,
the share of pixels that were clipped, the share of zeros that are no longer zero, and whether
dcm2niix reads geometry, times of slices, b values and directions as before. The exit code is 1
where a promise was not held: the two commands disagree, a validator finds something new, or
dcm2niix reads something else.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel
import numpy as np

from bench.derived import EVERYTHING
from stillscan.app.bundles.warm_networks import WarmNetworks
from stillscan.app.pipeline.pipeline import run_with
from stillscan.app.pipeline.survey import Job, survey
from stillscan.app.settings import load_settings
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import Candidate, find_series, read_series
from stillscan.operators.report.outcome import SeriesOutcome

NO_DATA = (".md", ".json", ".txt")
SOFTWARE_S = 120  # the longest that a validator may take
Read = dict[str, object]


@dataclass(frozen=True)
class Row:
    """What became of one series, one radiograph, or one file that is of no series.

    Attributes:
        inspected: whether `inspect` foretold it, as far as headers show it.
        new_errors: lines of the validators about derived files that they have not of the source.
        clipped: share of the pixels that were clipped.
        zeros_changed: share of the pixels that were 0 and are not any more; None without any.
        read_alike: whether dcm2niix reads the same of both; None where it reads nothing.
    """

    case: str
    outcome: str
    reason: str
    inspected: bool
    new_errors: tuple[str, ...] = ()
    clipped: float | None = None
    zeros_changed: float | None = None
    read_alike: bool | None = None

    @property
    def is_right(self) -> bool:
        """Whether every promise was held."""
        return self.inspected and not self.new_errors and self.read_alike is not False


def cases(directory: Path) -> list[Path]:
    """Return the folders that hold files, and the files beside folders."""
    folders = [each for each in directory.rglob("*") if each.is_dir()]
    found = [each for each in folders if any(one.is_file() for one in each.iterdir())]
    files = (each for each in directory.iterdir() if each.is_file())
    return sorted([*found, *(each for each in files if each.suffix not in NO_DATA)])


def rows_of(case: Path, name: str, decoder: Decoder, networks: WarmNetworks) -> Iterator[Row]:
    """Inspect and denoise one case with the shipped settings."""
    settings = load_settings()
    with tempfile.TemporaryDirectory() as scratch:
        job = Job(case, Path(scratch, "out"), settings)
        foretold = _foretold(job, decoder)
        result = run_with(job, decoder, networks, overlapped=False)
        sources = _by_uid(find_series(case, decoder, settings.selection).candidates)
        for each in result.outcomes:
            known = foretold.get((each.uid, each.message if each.uid is None else ""))
            row = Row(name, each.status, each.reason, known in (each.reason, "would denoise"))
            if each.derived is not None:
                row = _with_checks(row, each, job.output, sources[each.uid or ""], decoder)
            yield row
        if not result.outcomes:
            reasons = ", ".join(sorted({each.reason for each in result.skipped}))
            yield Row(name, "skipped", reasons, inspected=True)


def _foretold(job: Job, decoder: Decoder) -> dict[tuple[str | None, str], str]:
    found = survey(job, decoder)
    chosen: dict[tuple[str | None, str], str] = {
        (_uid(each), ""): "would denoise" for each, _ in found.chosen
    }
    refused = {(o.uid, o.message if o.uid is None else ""): o.reason for o in found.passed_over}
    return {**chosen, **refused}


def _uid(candidate: Candidate) -> str:
    return candidate.sop_instance_uid or candidate.series_instance_uid


def _by_uid(candidates: Iterable[Candidate]) -> dict[str, Candidate]:
    return {_uid(each): each for each in candidates}


def _with_checks(
    row: Row, outcome: SeriesOutcome, output: Path, source: Candidate, decoder: Decoder
) -> Row:
    """Add what the derived files show."""
    assert outcome.derived is not None, "only of what was derived"
    folder = output / outcome.derived.series_instance_uid
    files = [folder / f"{uid}.dcm" for uid in outcome.derived.sop_instance_uids]
    before = [each.path for each in source.instances]
    return replace(
        row,
        new_errors=tuple(_new_errors(before, files)),
        clipped=outcome.derived.clipped_share,
        zeros_changed=_zeros_changed(source, files, decoder),
        read_alike=_read_alike(before, files),
    )


def _errors(tool: str, files: Sequence[Path]) -> Counter[str]:
    done = subprocess.run(
        [tool, *map(str, files)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SOFTWARE_S,
        check=False,
    )
    lines = (done.stdout + done.stderr).splitlines()
    return Counter(line.strip() for line in lines if "Error" in line)


def _new_errors(sources: Sequence[Path], derived: Sequence[Path]) -> Iterator[str]:
    """Yield the errors of derived files that no file of the source has so often."""
    known: Counter[str] = Counter()
    for each in sources:
        known |= _errors("dciodvfy", [each])
    for each in derived:
        yield from (_errors("dciodvfy", [each]) - known).elements()
    entities = _errors("dcentvfy", sources)
    both = _errors("dcentvfy", [*sources, *derived])
    yield from (line for line in both if line not in entities)


def _zeros_changed(source: Candidate, derived: Sequence[Path], decoder: Decoder) -> float | None:
    """Return the share of stored zeros of the source that the derived series does not have."""
    with tempfile.TemporaryDirectory() as scratch:
        for file in derived:
            shutil.copyfile(file, Path(scratch, file.name))
        (made,) = find_series(Path(scratch), decoder, EVERYTHING).candidates
        before, after = read_series(source, decoder), read_series(made, decoder)
        zeros = changed = 0
        for index in range(len(before.slices)):
            first, second = (each.read(index, index + 1) for each in (before, after))
            zero = (first.stored == 0) & ~first.padding
            zeros += int(zero.sum())
            changed += int((zero & (second.stored != 0)).sum())
    return changed / zeros if zeros else None


def _read_alike(sources: Sequence[Path], derived: Sequence[Path]) -> bool | None:
    before, after = (_as_nifti(files) for files in (sources, derived))
    return before == after if before else None


def _as_nifti(files: Sequence[Path]) -> list[Read]:
    """Return what dcm2niix reads: shape and place, b values, directions, times of slices."""
    with tempfile.TemporaryDirectory() as scratch:
        source, out = Path(scratch, "in"), Path(scratch, "out")
        source.mkdir()
        out.mkdir()
        for number, file in enumerate(files):
            shutil.copyfile(file, source / f"{number:06d}.dcm")
        arguments = ["-b", "y", "-z", "n", "-f", "series", "-o", str(out), str(source)]
        subprocess.run(
            ["dcm2niix", *arguments], capture_output=True, timeout=SOFTWARE_S, check=False
        )
        return [_of_one(each) for each in sorted(out.glob("*.nii"))]


def _of_one(file: Path) -> Read:
    image = nibabel.load(file)
    beside = file.with_suffix(".json")  # a corrected gantry tilt has none
    sidecar = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {}
    texts = {
        ending: file.with_suffix(ending).read_text()
        for ending in (".bval", ".bvec")
        if file.with_suffix(ending).exists()
    }
    # dcm2niix turns the axes of a 3D acquisition to those of the patient; MRAcquisitionType, which
    # says what it was, may not be in a DERIVED enhanced image
    place = nibabel.as_closest_canonical(image)
    affine = np.round(place.affine, 3).tolist()
    return texts | {"shape": place.shape, "affine": affine, "times": sidecar.get("SliceTiming")}


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out for a terminal."""
    heads = ("case", "outcome", "reason", "inspect", "errors", "clipped", "zeros", "dcm2niix")
    cells = [heads, *map(_cells, rows)]
    widths = [max(len(each[column]) for each in cells) for column in range(len(heads))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(each, widths, strict=True)).rstrip()
        for each in cells
    )


def _cells(row: Row) -> tuple[str, ...]:
    alike = {None: "", True: "same", False: "OTHER"}[row.read_alike]
    return (
        row.case,
        row.outcome,
        row.reason,
        "same" if row.inspected else "OTHER",
        str(len(row.new_errors)) if row.clipped is not None else "",
        _percent(row.clipped),
        _percent(row.zeros_changed),
        alike,
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def field(directory: Path) -> list[Row]:
    """Return the rows of all cases of a directory."""
    networks = WarmNetworks()
    with Decoder() as decoder:
        return [
            row
            for case in cases(directory)
            for row in rows_of(case, str(case.relative_to(directory)), decoder, networks)
        ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("directory", type=Path)
    rows = field(parser.parse_args().directory)
    print(table(rows))
    for row in rows:
        for line in row.new_errors:
            print(f"{row.case}: {line}")
    sys.exit(0 if all(row.is_right for row in rows) else 1)


if __name__ == "__main__":
    main()
