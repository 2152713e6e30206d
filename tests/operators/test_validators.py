"""What dciodvfy and dcentvfy say of a derived series, they say of its source too (W4)."""

import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.derived import STUDENT, Derivation, derive, derive_volume, real_volumes, smoothed
from tests.enhanced_factory import ENHANCED
from tests.series_factory import SOP_CLASSES, make_series

Tool = Callable[[str], str]

pytestmark = pytest.mark.tools


def errors_of(tool: str, files: Iterable[Path]) -> Counter[str]:
    """The error lines of a validator, how often each."""
    run = subprocess.run(
        [tool, *map(str, files)], capture_output=True, text=True, errors="replace", timeout=60
    )
    lines = (run.stdout + run.stderr).splitlines()
    return Counter(line.strip() for line in lines if "Error" in line)


def new_errors(tool: Tool, derivation: Derivation) -> list[str]:
    """Errors that the derived files have and their sources have not."""
    added = []
    for source, derived in derivation.files:
        added += (
            errors_of(tool("dciodvfy"), [derived]) - errors_of(tool("dciodvfy"), [source])
        ).elements()
    sources, derived_files = zip(*derivation.files, strict=True)
    entities = tool("dcentvfy")
    before, after = errors_of(entities, sources), errors_of(entities, sources + derived_files)
    added += [line for line in after if line not in before]
    return added


@pytest.mark.parametrize(
    ("modality", "signed"),
    [(each, False) for each in SOP_CLASSES] + [("MR", True), ("CT", True), ("PT", True)],
)
def test_derived_series_of_complete_sources_have_no_errors(
    modality: str, signed: bool, tool: Tool, tmp_path: Path
) -> None:
    make_series(tmp_path / "source", modality=modality, signed=signed)
    derivation = derive(tmp_path / "source")
    for _, derived in derivation.files:
        assert errors_of(tool("dciodvfy"), [derived]) == Counter()
    everything = [file for pair in derivation.files for file in pair]
    assert errors_of(tool("dcentvfy"), everything) == Counter()


@pytest.mark.parametrize("kind", ENHANCED)
def test_derived_multi_frame_series_have_no_new_errors(
    kind: str, tool: Tool, tmp_path: Path
) -> None:
    ENHANCED[kind](tmp_path / "source")
    assert new_errors(tool, derive(tmp_path / "source")) == []


@pytest.mark.slow
@pytest.mark.data
def test_derived_series_of_real_sources_have_no_new_errors(
    stillscan_data: Path, tool: Tool, tmp_path: Path
) -> None:
    checked = 0
    for name, volume in real_volumes(stillscan_data, tmp_path):
        derivation = derive_volume(volume, tmp_path / "derived", smoothed, STUDENT)
        assert new_errors(tool, derivation) == [], name
        checked += len(derivation.files)
    assert checked >= 75 + 9 + 2
