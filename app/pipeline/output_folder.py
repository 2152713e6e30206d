"""The output folder: results are staged inside it and published together by rename, or not at all.

A killed run cannot remove its staging folder; the next run into the same output does. It recognises
folders of ended processes by a lock, which the kernel releases with the process.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # on Windows: nothing tells there which staging folders are abandoned
    fcntl = None  # type: ignore[assignment]

from stillscan.operators.durable_files import sync
from stillscan.operators.errors import SettingsError
from stillscan.operators.output_faults import naming_output_faults

log = logging.getLogger("stillscan")

STAGING_PREFIX = ".stillscan-"
REPORT = "report"
REPLACED = "replaced"  # in a staging folder: files that the results have replaced
LOCK = "writer.lock"  # in a staging folder: held as long as its process runs
NOT_RESULTS = (REPLACED, LOCK)
BOOT = Path("/proc/sys/kernel/random/boot_id")


def require_apart(source: Path, output: Path) -> None:
    """Refuse an output inside the input: the next run would read it as input.

    Raises:
        SettingsError: if the input does not exist or the output is the input or inside it.
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
    """Create a hidden staging folder in `output`; remove it with its contents at the end.

    It is inside the output so that publishing is a rename on one file system. Staging folders of
    killed runs are removed first.

    Raises:
        OutputError: if the output cannot be written.
    """
    with ExitStack() as stack:
        with naming_output_faults(f"write into the output folder {output}"):
            output.mkdir(parents=True, exist_ok=True)
            remove_abandoned(output)
            staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=output))
            stack.callback(shutil.rmtree, staging, ignore_errors=True)
            _hold(stack.enter_context((staging / LOCK).open("wb")))
        yield staging


def remove_abandoned(output: Path) -> None:
    """Remove the staging folders of processes that have ended, and no others."""
    for staging in output.glob(f"{STAGING_PREFIX}*"):
        if _take_over(staging, output):
            shutil.rmtree(staging, ignore_errors=True)
            log.info("removed %s, left by a killed run", staging.name)


def _take_over(staging: Path, output: Path) -> bool:
    """Return whether a staging folder may be removed: its process has ended, no file is needed.

    A process that was killed while publishing has moved away files that it was to replace: they are
    put back unless they have been replaced.
    """
    if fcntl is None:
        return False
    # NFS locks only files opened for writing, and keeps removed files while they are open
    with suppress(OSError), (staging / LOCK).open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock.read() != _mark(lock):
            return False
        if (staging / REPLACED).is_dir():
            for old, target in list(_moves(staging / REPLACED, output)):
                if not target.exists():
                    old.rename(target)
        return True
    return False


def _hold(lock: BinaryIO) -> None:
    """Lock the file while it is open, then mark it; the mark tells whether the lock is reliable."""
    if fcntl is None:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mark = _mark(lock)
    except OSError:  # a file system without locks: leftovers must be removed by hand
        return
    os.write(lock.fileno(), mark)


def _mark(lock: BinaryIO) -> bytes:
    """Return kernel and file system, within which the lock tells whether its process runs.

    On another machine, or through another mount, the lock may be invisible.
    """
    return f"{BOOT.read_text().strip()} {os.fstat(lock.fileno()).st_dev}\n".encode()


def publish(staging: Path, output: Path) -> None:
    """Move all staged files into the output, or none.

    An existing derived series has the same content (its UID says so) and is replaced; of an
    existing report, the files of the same name are replaced. Nothing else is touched.

    Raises:
        OutputError: if a rename fails; earlier moves are undone.
    """
    replaced = staging / REPLACED
    moved: list[tuple[Path, Path, Path | None]] = []
    try:
        with naming_output_faults(f"publish into the output folder {output}"):
            replaced.mkdir()
            for source, target in list(_moves(staging, output)):
                target.parent.mkdir(exist_ok=True)
                old = None
                if target.exists():
                    old = replaced / source.relative_to(staging)
                    old.parent.mkdir(exist_ok=True)
                    target.rename(old)
                moved.append((source, target, old))
                source.rename(target)
            sync(output)
    except BaseException:
        _take_back(moved)
        raise


def _moves(staging: Path, output: Path) -> Iterator[tuple[Path, Path]]:
    for entry in sorted(staging.iterdir()):
        if entry.name == REPORT:
            for file in sorted(entry.iterdir()):
                yield file, output / REPORT / file.name
        elif entry.name not in NOT_RESULTS:
            yield entry, output / entry.name


def _take_back(moved: list[tuple[Path, Path, Path | None]]) -> None:
    for source, target, old in reversed(moved):
        if target.exists() and not source.exists():
            target.rename(source)
        if old is not None and old.exists():
            old.rename(target)
