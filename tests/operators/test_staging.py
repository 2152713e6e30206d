"""A derived series is on the disk whole or not at all, whatever the disk says."""

import errno
import os
import resource
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stillscan.operators.errors import DiskFullError, NotWritableError, OutputError
from stillscan.operators.volume import Volume
from stillscan.operators.writing.derive_series import SeriesWriter, derive_series
from tests.derived import STUDENT, Denoised, blocks_of, smoothed, volumes_in
from tests.series_factory import make_series


def series_in(folder: Path) -> tuple[Volume, list[Denoised]]:
    make_series(folder, slices=6)
    (volume,) = volumes_in(folder)
    return volume, [Denoised(block, smoothed(block)) for block in blocks_of(volume)]


def test_a_stage_writes_only_into_its_own_folder(tmp_path: Path) -> None:
    volume, blocks = series_in(tmp_path / "source")
    staging = tmp_path / "staging"
    staging.mkdir()
    with SeriesWriter(volume, STUDENT, staging) as writer:
        for block in blocks:
            writer.add(block)
        series = writer.finish()
    assert series.folder == staging / series.series_instance_uid
    assert sorted(series.folder.iterdir()) == sorted(series.files)
    assert list(staging.iterdir()) == [series.folder]


def test_a_stage_that_is_left_before_its_end_leaves_nothing(tmp_path: Path) -> None:
    volume, blocks = series_in(tmp_path / "source")
    staging = tmp_path / "staging"
    staging.mkdir()
    with SeriesWriter(volume, STUDENT, staging) as writer:
        writer.add(blocks[0])
        assert list(staging.iterdir()) != []
    assert list(staging.iterdir()) == []


def test_an_exception_of_the_denoiser_leaves_the_output_empty(tmp_path: Path) -> None:
    volume, blocks = series_in(tmp_path / "source")

    def failing() -> Iterator[Denoised]:
        yield blocks[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        derive_series(failing(), volume, STUDENT, tmp_path / "derived")
    assert list((tmp_path / "derived").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, DiskFullError),
        (errno.EDQUOT, DiskFullError),
        (errno.EROFS, NotWritableError),
        (errno.EIO, OutputError),
    ],
)
def test_a_disk_that_fails_is_named_and_leaves_nothing(
    number: int, expected: type[OutputError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, blocks = series_in(tmp_path / "source")
    written = []

    def write(path: Path, pieces: Iterable[bytes]) -> None:
        if len(written) == 4:
            raise OSError(number, os.strerror(number))
        written.append(path)

    monkeypatch.setattr("stillscan.operators.writing.derive_series.write_file", write)
    with pytest.raises(OutputError) as caught:
        derive_series(blocks, volume, STUDENT, tmp_path / "derived")
    assert type(caught.value) is expected
    assert list((tmp_path / "derived").iterdir()) == []


def test_what_the_disk_says_when_it_syncs_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, blocks = series_in(tmp_path / "source")

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DiskFullError):
        derive_series(blocks, volume, STUDENT, tmp_path / "derived")
    assert list((tmp_path / "derived").iterdir()) == []


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_file_that_the_system_cuts_off_is_an_output_fault(tmp_path: Path) -> None:
    volume, blocks = series_in(tmp_path / "source")
    with largest_file(4096), pytest.raises(OutputError, match="write an image"):
        derive_series(blocks, volume, STUDENT, tmp_path / "derived")
    assert list((tmp_path / "derived").iterdir()) == []


def test_an_output_that_is_a_file_is_an_output_fault(tmp_path: Path) -> None:
    volume, blocks = series_in(tmp_path / "source")
    (tmp_path / "derived").write_text("not a folder")
    with pytest.raises(OutputError):
        derive_series(blocks, volume, STUDENT, tmp_path / "derived")
    assert (tmp_path / "derived").read_text() == "not a folder"
