"""What is written durably is on the disk before the call returns."""

import os
from pathlib import Path

import pytest

from stillscan.operators.durable_files import sync, write_synced


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every file or folder that was synced, with its size at that moment."""
    found: list[tuple[str, int]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        found.append((path.name, path.stat().st_size))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return found


def test_a_file_is_synced_when_all_of_it_is_written(tmp_path: Path, synced):
    path = tmp_path / "a.bin"
    write_synced(path, lambda file: file.write(b"x" * 100_001))
    assert synced == [("a.bin", 100_001)]
    assert path.read_bytes() == b"x" * 100_001


def test_a_folder_can_be_synced(tmp_path: Path, synced):
    sync(tmp_path)
    assert [name for name, _ in synced] == [tmp_path.name]


def test_a_fault_of_the_writer_is_passed_on(tmp_path: Path, synced):
    with pytest.raises(ZeroDivisionError):
        write_synced(tmp_path / "a.bin", lambda file: file.write(bytes(1 // 0)))
    assert synced == []
