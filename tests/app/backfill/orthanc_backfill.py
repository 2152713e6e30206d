"""An archive is back-filled: `python -m tests.app.backfill.orthanc_backfill WORK`.

Folder to Orthanc, Orthanc to itself, Orthanc to a folder, a list of UIDs. Inside a network
namespace of its own, since Orthanc listens on all addresses.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pydicom

from bench.pacs import namespace
from bench.pacs.processes import Orthanc
from tests.app.backfill.in_process import derived_in, fill
from tests.series_factory import make_series

URL = "http://127.0.0.1:8042/dicom-web"
SLICES = 3


def main(work: Path) -> None:
    """Raises where something is not as it should be."""
    series = {}
    for seed in range(3):
        files = make_series(work / "in" / str(seed), seed=seed, slices=SLICES)
        series[pydicom.dcmread(files[0]).SeriesInstanceUID] = files
    make_series(work / "in" / "map", seed=9, slices=2, ImageType=["ORIGINAL", "PRIMARY", "ADC"])
    fill(work / "in", work / "from_folder")
    expected = {
        name.partition("/")[2]: instances
        for name, instances in derived_in(work / "from_folder").items()
    }
    assert len(expected) == len(series)
    orthanc = Orthanc(shutil.which("Orthanc", path="/usr/sbin:/usr/bin") or "", work / "pacs")
    orthanc.start()
    try:
        folder_to_archive(work, orthanc, expected)
        store(work / "in")
        archive_to_itself(work, orthanc, expected)
        archive_to_folder(work, expected)
        chosen_by_uid(work, [*series][:2], expected)
    finally:
        orthanc.kill()


def store(folder: Path) -> None:
    """Send a folder to Orthanc."""
    dcmsend = shutil.which("dcmsend", path="/usr/bin") or ""
    target = ["-aec", "ORTHANC", "127.0.0.1", "4242"]
    subprocess.run([dcmsend, *target, "+sd", "+r", str(folder)], check=True)


def folder_to_archive(work: Path, orthanc: Orthanc, expected: dict[str, list[str]]) -> None:
    """What is stored has the UIDs that it would have in a folder, and every instance is there."""
    code, _ = fill(work / "in", URL, state=work / "state1")
    assert code == 0
    assert orthanc.series() == dict.fromkeys(expected, SLICES)


def archive_to_itself(work: Path, orthanc: Orthanc, expected: dict[str, list[str]]) -> None:
    """Our own series are not fetched, let alone denoised; nothing is twice, ever."""
    before = orthanc.series()
    for resume in (False, True):
        code, printed = fill(URL, URL, state=work / "state2", resume=resume)
        assert code == 0, printed
        assert orthanc.series() == before, printed
    assert "already-denoised" in printed
    assert "quantitative-map" in printed


def archive_to_folder(work: Path, expected: dict[str, list[str]]) -> None:
    """The same derived series, instance by instance."""
    code, _ = fill(URL, work / "out", environment={"STILLSCAN_SOURCE_TOKEN": "not asked for"})
    assert code == 0
    found = {name.partition("/")[2]: each for name, each in derived_in(work / "out").items()}
    assert found == expected
    sample = pydicom.dcmread(next((work / "out").glob("*/*/*.dcm")))
    same = pydicom.dcmread(next((work / "from_folder").rglob(f"{sample.SOPInstanceUID}.dcm")))
    assert sample.SeriesNumber == same.SeriesNumber + 1  # that one is taken in the archive by now
    sample.SeriesNumber = same.SeriesNumber
    assert sample == same


def chosen_by_uid(work: Path, uids: list[str], expected: dict[str, list[str]]) -> None:
    """What the list names and no more; what the archive has not is in the table."""
    (work / "list").write_text("\n".join([*uids, "1.2.3.4"]))
    code, printed = fill(work / "list", work / "chosen", archive=URL)
    assert code == 5
    assert "not-in-archive" in printed
    found = {name.partition("/")[2] for name in derived_in(work / "chosen")}
    assert len(found) == len(uids)
    assert found < set(expected)


if __name__ == "__main__":
    namespace.enter(["tests.app.backfill.orthanc_backfill", *sys.argv[1:]])
    main(Path(sys.argv[1]))
