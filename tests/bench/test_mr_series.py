"""Series that the benchmarks and the soak test make up: the same call writes the same files."""

from pathlib import Path

import pydicom
import pytest

from bench.pacs.scanner import make_series
from bench.phantom.acquisition import Protocol
from bench.phantom.series import generate_series

SMALL = Protocol(slices=2, first_mm=8.0)


def scanned(folder: Path, number: int) -> list[Path]:
    return list(make_series(folder, number, 2, 32, SeriesDescription="again").files)


def imaged(folder: Path, number: int) -> list[Path]:
    generate_series(folder, SMALL, number)
    return sorted(folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("make", [scanned, imaged])
def test_the_same_number_gives_the_same_files_and_another_another_series(make, tmp_path):
    first, again, other = (
        make(tmp_path / name, number) for name, number in (("first", 1), ("again", 1), ("other", 2))
    )
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in again]
    uids = [
        {(each.StudyInstanceUID, each.SeriesInstanceUID) for each in map(pydicom.dcmread, files)}
        for files in (first, other)
    ]
    assert [len(each) for each in uids] == [1, 1]
    assert not set(*uids[0]) & set(*uids[1])


def test_attributes_are_set_on_every_instance(tmp_path):
    series = make_series(tmp_path, 1, 3, 32, expected=0, EchoTime=7)
    instances = [pydicom.dcmread(file) for file in series.files]
    assert [each.SOPInstanceUID for each in instances] == list(series.sop_uids)
    assert [each.InstanceNumber for each in instances] == [1, 2, 3]
    assert [each.ImagePositionPatient[2] for each in instances] == [0, 3, 6]
    assert {each.EchoTime for each in instances} == {7}
    assert "ImagesInAcquisition" not in instances[0]
