"""Two thousand damaged real files: each becomes pixels or a reason code, and nothing breaks."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bench.robustness.fuzz import DERIVED, Outcome, outcomes, peak_kilobytes, real_files
from bench.robustness.mutants import DAMAGES, mutant
from tests.test_readme import reason_codes

MUTANTS, SEED, FILES = 2080, 4, 5
SECONDS, KILOBYTES, STOPS = 10, 2**20, 10

pytestmark = [
    pytest.mark.slow,
    pytest.mark.data,
    # damaged character sets and values, said by pydicom where a text is decoded
    pytest.mark.filterwarnings("ignore::UserWarning:pydicom"),
]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.fixture(scope="module")
def found(stillscan_data, tmp_path_factory) -> list[Outcome]:
    """What became of the mutants; anything that is not classified raises here."""
    folder, files, before = (
        tmp_path_factory.mktemp("fuzz"),
        real_files(stillscan_data),
        open_files(),
    )
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew at what is held now
    held = peak_kilobytes(os.getpid())
    all_of_them = list(outcomes(files[:FILES], MUTANTS, SEED, folder))
    assert open_files() <= before + 2
    assert peak_kilobytes(os.getpid()) - held < 300 * 1024
    assert [path.name for path in folder.iterdir()] == ["mutant.dcm"], "nothing else is left"
    return all_of_them


def test_every_mutant_is_classified(found):
    assert len(found) == MUTANTS
    assert {each.reason for each in found} <= {DERIVED, *reason_codes()}


def test_mutants_reach_deep_and_not_all_of_them_fail(found):
    for source in {each.source for each in found}:
        reasons = Counter(each.reason for each in found if each.source == source)
        assert reasons[DERIVED] > 40, source
        assert sum(reasons.values()) - reasons[DERIVED] > 100, source
        assert len(reasons) > 8, source
    assert {damage for each in found for damage in each.damages} >= set(DAMAGES)


def test_no_mutant_takes_long_or_much_memory(found):
    assert max(each.seconds for each in found) < SECONDS
    assert max(each.child_kilobytes for each in found) < KILOBYTES


def test_hardly_a_mutant_ends_the_reading_process(found):
    assert sum(each.stopped for each in found) <= STOPS


def test_same_seed_makes_the_same_mutant(stillscan_data):
    content = Path(real_files(stillscan_data)[1]).read_bytes()
    one, same, other = (mutant(content, np.random.default_rng([7, n])) for n in (3, 3, 4))
    assert one == same
    assert one.content != other.content
