"""Series of noisy images in PNG, NIfTI and npz files.

- PNG: 8 or 16 bits, grey; the files of one folder are one series, sizes may differ;
- NIfTI (`.nii`, `.nii.gz`): one series; the third axis counts slices, later ones repeats;
- npz: every array of numbers is one series; its last two axes are rows and columns, the one before
  them counts slices, earlier ones repeats.
"""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Picture
from PIL import UnidentifiedImageError

from stillscan.app.datasets.errors import ReaderMissingError, UnsupportedArrayError
from stillscan.app.datasets.noisy_series import Padding, Pixels, SeriesSource
from stillscan.operators.errors import DamagedFileError, InputError, UnreadableFileError
from stillscan.operators.reading.read_series import Refusal

PNG, NPZ, NIFTI = (".png",), (".npz",), (".nii", ".nii.gz")
SUFFIXES = (*PNG, *NPZ, *NIFTI)
GREY_MODES = ("L", "I", "I;16", "I;16B")  # modes of Pillow for 8 and 16 bits
BIDS_SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")
UNREADABLE_PICTURE = (
    UnidentifiedImageError,
    SyntaxError,
    ValueError,
    Picture.DecompressionBombError,
)
UNREADABLE_ARCHIVE = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError)


def is_known_file(path: Path) -> bool:
    """Return whether the suffix of the name is a known format."""
    return path.name.lower().endswith(SUFFIXES)


def find_file_series(
    files: Iterable[Path], folder: Path, modality: str = ""
) -> tuple[list[SeriesSource], list[Refusal]]:
    """Find the series in these files, and the files without any.

    Args:
        files: files with a known suffix (`is_known_file`).
        folder: folder in which they were found; names are relative to it.
        modality: modality of all files; "" if unknown.
    """
    sources: list[SeriesSource] = []
    refused: list[Refusal] = []
    pictures: dict[Path, list[Path]] = defaultdict(list)
    for path in files:
        name = path.name.lower()
        if name.endswith(PNG):
            pictures[path.parent].append(path)
            continue
        find = _archive_series if name.endswith(NPZ) else _nifti_series
        try:
            found, not_images = find(path, folder, modality)
        except InputError as error:
            refused.append(refusal(path, name_below(path, folder), error))
            continue
        sources += found
        refused += not_images
    for paths in pictures.values():
        found, not_images = _picture_series(sorted(paths), folder, modality)
        sources += found
        refused += not_images
    return sources, refused


def refusal(path: Path, name: str, error: InputError) -> Refusal:
    """Build a row of the table of refused series."""
    return Refusal(None, (path,), error.reason, f"{name}: {error}")


def name_below(path: Path, folder: Path) -> str:
    """Return the path for messages; `folder` may itself be the only file."""
    below = path != folder and path.is_relative_to(folder)
    return path.relative_to(folder).as_posix() if below else path.name


def subject_of(path: Path, folder: Path) -> str:
    """Identify the subject: the BIDS subject, else the first folder below DATA, else the file.

    Too coarse a guess reduces held-out images; too fine a one puts one subject on both sides.
    """
    parts = path.relative_to(folder).parts if path != folder else (path.name,)
    for part in parts:
        bids = BIDS_SUBJECT.match(part)
        if bids is not None:
            return bids[0]
    return parts[0]


def _picture_series(
    paths: Sequence[Path], folder: Path, modality: str
) -> tuple[list[SeriesSource], list[Refusal]]:
    """Group the pictures of one folder: one series for each number of bits."""
    refused: list[Refusal] = []
    alike: dict[str, list[tuple[Path, tuple[int, int]]]] = defaultdict(list)
    for path in paths:
        try:
            mode, size = _picture_header(path)
            alike["8 bits" if mode == "L" else "16 bits"].append((path, size))
        except InputError as error:
            refused.append(refusal(path, name_below(path, folder), error))
    sources = []
    for bits, found in alike.items():
        parent = found[0][0].parent
        inside = parent != folder and folder.is_dir()
        name = f"{name_below(parent, folder)}/*.png" if inside else "*.png"
        if len(found) == 1:
            name = name_below(found[0][0], folder)
        sources.append(
            SeriesSource(
                name if len(alike) == 1 else f"{name} ({bits})",
                subject_of(found[0][0], folder),
                modality,
                tuple(size for _, size in found),
                partial(_read_pictures, [path for path, _ in found]),
            )
        )
    return sources, refused


def _picture_header(path: Path) -> tuple[str, tuple[int, int]]:
    try:
        with Picture.open(path) as picture:
            mode, (columns, rows) = picture.mode, picture.size
    except UNREADABLE_PICTURE as error:
        raise DamagedFileError("cannot be read as a picture") from error
    except OSError as error:
        raise UnreadableFileError(f"cannot be read ({error.strerror})") from error
    if mode not in GREY_MODES:
        raise UnsupportedArrayError(f"pixels are of kind {mode}, expected 8 or 16 bits of grey")
    return mode, (rows, columns)


def _read_pictures(
    paths: Sequence[Path], indices: Sequence[int]
) -> Iterator[tuple[Pixels, Padding]]:
    for index in indices:
        try:
            with Picture.open(paths[index]) as picture:
                pixels = np.asarray(picture, np.float32)
        except (*UNREADABLE_PICTURE, OSError) as error:
            raise DamagedFileError(f"slice {index} cannot be read as a picture") from error
        yield pixels, np.zeros(pixels.shape, np.bool_)


def _archive_series(
    path: Path, folder: Path, modality: str
) -> tuple[list[SeriesSource], list[Refusal]]:
    """Find every array of an npz file that can be a stack of images."""
    sources: list[SeriesSource] = []
    refused: list[Refusal] = []
    for member, shape, dtype in _members(path):
        key = member.removesuffix(".npy")
        name = f"{name_below(path, folder)}[{key}]"
        try:
            sizes = _sizes(shape, dtype)
        except UnsupportedArrayError as error:
            refused.append(refusal(path, name, error))
            continue
        read = partial(_read_archive, path, key)
        places = None
        if len(shape) > 3:  # [..., slice, row, column]: earlier axes are repeats
            places = tuple((index % shape[-3],) for index in range(len(sizes)))
        subject = subject_of(path, folder)
        sources.append(SeriesSource(name, subject, modality, sizes, read, path, places))
    return sources, refused


def _members(path: Path) -> list[tuple[str, tuple[int, ...], np.dtype[Any]]]:
    """Read name, shape and type of every array from their headers."""
    found = []
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                with archive.open(member) as file:
                    version = np.lib.format.read_magic(file)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = read(file)
                    found.append((member, shape, dtype))
    except UNREADABLE_ARCHIVE as error:
        raise DamagedFileError("cannot be read as a file of arrays") from error
    except OSError as error:
        raise UnreadableFileError(f"cannot be read ({error.strerror})") from error
    return found


def _sizes(shape: Sequence[int], dtype: np.dtype[Any]) -> tuple[tuple[int, int], ...]:
    """Return rows and columns of every slice of an array [..., row, column]."""
    if dtype.kind not in "iuf":
        raise UnsupportedArrayError(
            f"values are {dtype}, expected integers or floating-point numbers"
        )
    if len(shape) < 2 or 0 in shape:
        raise UnsupportedArrayError(f"its shape is {tuple(shape)}, expected rows and columns")
    rows, columns = int(shape[-2]), int(shape[-1])
    return ((rows, columns),) * int(np.prod(shape[:-2], dtype=int))


def _read_archive(path: Path, key: str, indices: Sequence[int]) -> Iterator[tuple[Pixels, Padding]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values = arrays[key]
    except (*UNREADABLE_ARCHIVE, OSError) as error:
        raise DamagedFileError("cannot be read as a file of arrays") from error
    yield from _slices(values.reshape(-1, *values.shape[-2:]), indices)


def _nifti_series(
    path: Path, folder: Path, modality: str
) -> tuple[list[SeriesSource], list[Refusal]]:
    """Find the series in a NIfTI file."""
    image = nifti_of(path)
    x, y, *rest = (*image.shape, 1)[:2] + tuple(image.shape[2:])
    sizes = _sizes((*rest, x, y), image.get_data_dtype())
    read = partial(_read_nifti, path)
    name, subject = name_below(path, folder), subject_of(path, folder)
    times = math.prod(rest[1:])  # number of repeats of each slice, one after the other
    places = tuple((index // times,) for index in range(len(sizes)))
    return [SeriesSource(name, subject, modality, sizes, read, path, places)], []


def nifti_of(path: Path) -> Any:
    """Open a NIfTI file.

    Raises:
        DamagedFileError: if it cannot be read as NIfTI.
        ReaderMissingError: if nibabel is not installed (as in the image).
    """
    try:
        import nibabel
        from nibabel.filebasedimages import ImageFileError
    except ImportError as error:
        raise ReaderMissingError(
            "NIfTI needs the package nibabel, which is not installed"
        ) from error
    try:
        return nibabel.load(path)
    except (ImageFileError, ValueError, EOFError, zlib.error) as error:
        raise DamagedFileError("cannot be read as NIfTI") from error
    except OSError as error:  # also raised for a wrong gzip header
        raise DamagedFileError("cannot be opened as NIfTI") from error


def _read_nifti(path: Path, indices: Sequence[int]) -> Iterator[tuple[Pixels, Padding]]:
    image = nifti_of(path)
    try:
        values = np.asarray(image.dataobj)
    except (ValueError, EOFError, zlib.error, OSError) as error:
        raise DamagedFileError("its values cannot be read") from error
    stack = values.reshape(*values.shape[:2], -1) if values.ndim > 1 else values[:, None, None]
    yield from _slices(np.moveaxis(stack, -1, 0), indices)


def _slices(stack: np.ndarray, indices: Sequence[int]) -> Iterator[tuple[Pixels, Padding]]:
    for index in indices:
        pixels = np.ascontiguousarray(stack[index], np.float32)
        yield pixels, np.zeros(pixels.shape, np.bool_)
