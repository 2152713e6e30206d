"""The output folder: results are staged inside it and appear at the end, by rename, or not.

A run that is killed cannot remove what it staged; the next one into the same output does. It knows
the folders of the dead by a lock, which the kernel releases with the process that held it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from stillscan.operators.errors import SettingsError
from stillscan.operators.output_faults import naming_output_faults

log = logging.getLogger("stillscan")

STAGING_PREFIX = ".stillscan-"
REPORT = "report"
REPLACED = "replaced"  # in a staging folder: what the results took the place of
LOCK = "writer.lock"  # in a staging folder: held as long as its process lives
NOT_RESULTS = (REPLACED, LOCK)
BOOT = Path("/proc/sys/kernel/random/boot_id")


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

    It lies inside the output so that publishing is a rename on one file system. What runs that were
    killed have left there is removed first.

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
    """Remove the staging folders of processes that are dead, and of no other."""
    for staging in output.glob(f"{STAGING_PREFIX}*"):
        if _take_over(staging, output):
            shutil.rmtree(staging, ignore_errors=True)
            log.info("removed %s, which a run that was killed has left", staging.name)


def _take_over(staging: Path, output: Path) -> bool:
    """Whether a staging folder may be removed: its process is dead, and nothing in it is needed.

    One that was killed while it published has moved away what its results were to replace: that is
    put back where nothing took its place.
    """
    # NFS locks only what is open for writing, and keeps what is removed while it is open
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
    """Lock the file for as long as it is open, then mark it: by the mark, a lock can be judged."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mark = _mark(lock)
    except OSError:  # a file system without locks: what is left there, a person has to remove
        return
    os.write(lock.fileno(), mark)


def _mark(lock: BinaryIO) -> bytes:
    """The running kernel and the file system, within which a lock tells whether its process lives.

    Another machine, or another mount on this one, need not see the lock.
    """
    return f"{BOOT.read_text().strip()} {os.fstat(lock.fileno()).st_dev}\n".encode()


def publish(staging: Path, output: Path) -> None:
    """Move what is staged into the output: all of it, or nothing.

    A derived series that is there already has the same content (its UID says so) and is replaced;
    of a report that is there, the files of the same name are replaced. Nothing else is touched.

    Raises:
        OutputError: if a rename fails; what was moved before is taken back.
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
            make_names_durable(output)
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


def make_names_durable(folder: Path) -> None:
    """Have the disk hold what was renamed in a folder."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
