"""The benchmark runs what it says it runs, and its report holds what it measured."""

import pydicom
import pytest

from bench.speed.run import markdown
from bench.speed.whole_run import measure_whole_run, write_long_series


def test_a_long_series_is_one_series_with_fresh_noise(tmp_path):
    write_long_series(tmp_path, slices=10, matrix=64)
    instances = [pydicom.dcmread(path) for path in sorted(tmp_path.glob("*.dcm"))]
    assert len(instances) == 10
    assert len({instance.SeriesInstanceUID for instance in instances}) == 1
    assert len({instance.SOPInstanceUID for instance in instances}) == 10
    assert len({bytes(instance.PixelData) for instance in instances}) == 10


@pytest.mark.slow
def test_a_whole_run_reports_time_and_memory_of_both_processes():
    run = measure_whole_run(2, 64, ("--mode", "identity"))
    assert run.seconds > 0
    assert run.core_seconds > 0
    assert run.parent_mib > run.child_mib > 5
    assert "| 2 x 64x64 |" in markdown({"processor": "any"}, [], [run])


@pytest.mark.slow
def test_a_run_that_fails_stops_the_benchmark():
    with pytest.raises(SystemExit, match="exit code 2"):
        measure_whole_run(1, 64, ("--mode", "unheard-of"))
