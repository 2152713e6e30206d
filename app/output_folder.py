"""The output folder: results are staged inside it and appear at the end, by rename, or not."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from operators.errors import SettingsError
from operators.output_faults import naming_output_faults

STAGING_PREFIX = ".stillscan-"
REPORT = "report"


def require_apart(source: Path, output: Path) -> None:
    """Refuse an output that lies in the input: the next run would read it as input.

    Raises:
        SettingsError: if the input does not exist or the output is the input or lies inside it.
    """
    if not source.exists():
        raise SettingsError(f"input {source} does not exist")
    inside, outer = output.resolve(), source.resolve()
    if inside == outer:
        raise SettingsError(f"input and output are the same: {source}")
    if outer in inside.parents:
        raise SettingsError(
            f"output {output} lies inside input {source}: the next run would read it as input"
        )


@contextmanager
def staging_in(output: Path) -> Iterator[Path]:
    """Make a hidden staging folder in `output` and remove it, with what is left in it, at the end.

    It lies inside the output so that publishing is a rename on one file system.

    Raises:
        OutputError: if the output cannot be written.
    """
    with naming_output_faults(f"write into the output folder {output}"):
        output.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=output))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def publish(staging: Path, output: Path) -> None:
    """Move what is staged into the output: all of it, or nothing.

    A derived series that is there already has the same content (its UID says so) and is replaced;
    of a report that is there, the files of the same name are replaced. Nothing else is touched.

    Raises:
        OutputError: if a rename fails; what was moved before is taken back.
    """
    replaced = staging / "replaced"
    moved: list[tuple[Path, Path, Path | None]] = []
    try:
        with naming_output_faults(f"publish into the output folder {output}"):
            replaced.mkdir()
            for source, target in list(_moves(staging, output)):
                target.parent.mkdir(exist_ok=True)
                old = None
                if target.exists():
                    old = replaced / str(len(moved))
                    target.rename(old)
                moved.append((source, target, old))
                source.rename(target)
            make_names_durable(output)
    except BaseException:
        _take_back(moved)
        raise


def _moves(staging: Path, output: Path) -> Iterator[tuple[Path, Path]]:
    for entry in sorted(staging.iterdir()):
        if entry.name == REPORT:
            for file in sorted(entry.iterdir()):
                yield file, output / REPORT / file.name
        elif entry.name != "replaced":
            yield entry, output / entry.name


def _take_back(moved: list[tuple[Path, Path, Path | None]]) -> None:
    for source, target, old in reversed(moved):
        if target.exists() and not source.exists():
            target.rename(source)
        if old is not None and old.exists():
            old.rename(target)


def make_names_durable(folder: Path) -> None:
    """Have the disk hold what was renamed in a folder."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
