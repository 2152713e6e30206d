"""Every kind of hostile header, through the whole pipeline beside a good series."""

import os

import pytest

from bench.robustness.fuzz import DERIVED, FAULTY, Outcome, peak_kilobytes
from bench.robustness.headers.__main__ import base_files, tried
from bench.robustness.headers.kinds import KINDS
from stillscan.operators.writing.companions.parametric_maps import MapSeries
from tests.test_readme import reason_codes

SECONDS, KILOBYTES = 10, 600 * 1024

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # of broken text


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[Outcome]:
    """What became of one mutant of each kind."""
    folder = tmp_path_factory.mktemp("headers")
    return list(tried(base_files(folder), len(KINDS), 0, folder))


@pytest.mark.slow
def test_every_kind_is_derived_or_refused_for_a_documented_reason(found):
    assert [each.damages for each in found] == [(kind,) for kind in KINDS]
    assert [each for each in found if each.reason in FAULTY] == []
    assert {each.reason for each in found} <= {DERIVED, *reason_codes()}
    assert 20 < sum(each.reason == DERIVED for each in found) < len(KINDS) - 20


@pytest.mark.slow
def test_no_kind_takes_long_or_much_memory(found):
    assert max(each.seconds for each in found) < SECONDS
    assert peak_kilobytes(os.getpid()) < KILOBYTES


def test_a_fault_of_ours_is_found_and_its_mutant_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(MapSeries, "instances", lambda *_: {}["of ours"])
    (one,) = tried(base_files(tmp_path), 1, 0, tmp_path)
    assert one.reason == "good-series-lost"
    assert "KeyError at" in one.place
    assert (tmp_path / "0.dcm").read_bytes()[128:132] == b"DICM"
