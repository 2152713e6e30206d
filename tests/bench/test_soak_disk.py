"""What `make soak` finds in a spool whose gateway goes on filing."""

import pytest
from pydicom.errors import InvalidDicomError

from bench.robustness.soak import disk
from tests.series_factory import make_series


@pytest.fixture
def spool(tmp_path):
    (tmp_path / "incoming").mkdir()
    (tmp_path / "instances" / "ab").mkdir(parents=True)
    make_series(tmp_path / "incoming", slices=3)
    return tmp_path


def ends(folder):
    return {file.read_bytes()[-100_000:] for file in folder.glob("*.dcm")}


def test_instances_that_are_filed_meanwhile_are_found(spool, monkeypatch):
    expected = ends(spool / "incoming")
    read = disk.dcmread

    def file_all_then_read(content):
        for waiting in (spool / "incoming").glob("*.dcm"):
            waiting.rename(spool / "instances" / "ab" / waiting.name)
        return read(content)

    monkeypatch.setattr(disk, "dcmread", file_all_then_read)
    assert disk.instances_in(spool) == expected
    assert len(expected) == 3


def test_an_instance_that_is_not_whole_is_an_error(spool):
    file = next((spool / "incoming").glob("*.dcm"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InvalidDicomError):
        disk.instances_in(spool)
