"""Opens the input that a user gives: a folder, a file, a DICOMDIR or a zip archive."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stillscan.operators.errors import DamagedFileError, InputError
from stillscan.operators.output_faults import naming_output_faults
from stillscan.operators.reading.file_names import shown

MOST_FILES = 2**20
MOST_OF_DISK = 0.9  # share of the free space of the temporary folder
AT_ONCE = 2**20  # bytes


BIDS_DESCRIPTION = "dataset_description.json"


class ArchiveTooLargeError(InputError):
    """The content of a zip archive exceeds the temporary folder, or it has too many files."""

    reason = "archive-too-large"


def is_nifti(path: Path) -> bool:
    """Return whether the name is that of a NIfTI file."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def is_bids(folder: Path) -> bool:
    """Return whether a folder is a BIDS data set."""
    return (folder / BIDS_DESCRIPTION).is_file()


@contextmanager
def opened(source: Path) -> Iterator[Path]:
    """Yield the folder or file to read: for a DICOMDIR its folder, for a zip archive its files.

    An archive is unpacked into a temporary folder, which is removed at the end; its files are named
    by numbers there.

    Raises:
        DamagedFileError: if an archive cannot be unpacked.
        ArchiveTooLargeError: if its files are too large, or too many.
        OutputError: if the temporary folder cannot be written.
    """
    if source.name.upper() == "DICOMDIR" and source.is_file():
        yield source.absolute().parent
    elif source.suffix.lower() == ".zip" and source.is_file():
        with tempfile.TemporaryDirectory(prefix="stillscan-") as folder:
            try:
                with zipfile.ZipFile(source) as archive:
                    _unpack(archive, Path(folder))
            except (
                zipfile.BadZipFile,
                zlib.error,
                EOFError,
                RuntimeError,
                NotImplementedError,
            ) as e:
                raise DamagedFileError(
                    f"{shown(source)} cannot be unpacked: damaged, encrypted or an unknown method"
                ) from e
            yield Path(folder)
    else:
        yield source


def _unpack(archive: zipfile.ZipFile, folder: Path) -> None:
    files = [each for each in archive.infolist() if not each.is_dir()]
    room = int(MOST_OF_DISK * shutil.disk_usage(folder).free)
    size = sum(each.file_size for each in files)
    if len(files) > MOST_FILES or size > room:
        raise ArchiveTooLargeError(
            f"the archive holds {len(files)} files of {size} bytes together; at most {MOST_FILES} "
            f"files and {room} bytes can be unpacked"
        )
    with naming_output_faults("unpack the archive into the temporary folder"):
        for number, each in enumerate(files):  # zipfile reads no more of a file than it declares
            with archive.open(each) as packed, (folder / f"{number:07d}").open("wb") as file:
                shutil.copyfileobj(packed, file, AT_ONCE)
