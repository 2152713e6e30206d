"""Every kind of hostile header, through the whole pipeline beside a good series."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.robustness.fuzz import DERIVED, FAULTY, Outcome, peak_kilobytes
from bench.robustness.headers.__main__ import base_files, tried
from bench.robustness.headers.kinds import KINDS
from stillscan.operators.writing.companions.parametric_maps import MapSeries
from tests.test_readme import reason_codes

SECONDS, GROWTH_KB = 10, 400 * 1024

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # of broken text


@dataclass(frozen=True)
class Lane:
    """What became of one mutant of each kind, and by how much the process grew meanwhile."""

    outcomes: list[Outcome]
    growth_kb: int


@pytest.fixture(scope="module")
def lane(tmp_path_factory) -> Lane:
    folder = tmp_path_factory.mktemp("headers")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew at what is held now
    before = peak_kilobytes(os.getpid())
    outcomes = list(tried(base_files(folder), len(KINDS), 0, folder))
    return Lane(outcomes, peak_kilobytes(os.getpid()) - before)


@pytest.mark.slow
def test_every_kind_is_derived_or_refused_for_a_documented_reason(lane):
    found = lane.outcomes
    assert [each.damages for each in found] == [(kind,) for kind in KINDS]
    assert [each for each in found if each.reason in FAULTY] == []
    assert {each.reason for each in found} <= {DERIVED, *reason_codes()}
    assert 20 < sum(each.reason == DERIVED for each in found) < len(KINDS) - 20


@pytest.mark.slow
def test_no_kind_takes_long_or_much_memory(lane):
    assert max(each.seconds for each in lane.outcomes) < SECONDS
    assert lane.growth_kb < GROWTH_KB


def test_a_fault_of_ours_is_found_and_its_mutant_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(MapSeries, "instances", lambda *_: {}["of ours"])
    (one,) = tried(base_files(tmp_path), 1, 0, tmp_path)
    assert one.reason == "good-series-lost"
    assert "KeyError at" in one.place
    assert (tmp_path / "0.dcm").read_bytes()[128:132] == b"DICM"
