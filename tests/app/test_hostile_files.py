"""Each hostile file of STILLSCAN_DATA/hostile costs nobody else anything.

Through the gateway: the scenario `poison` of `bench.robustness.soak`, which a test runs too.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.robustness.soak.poison import with_own_uids
from stillscan.app.bundles.choice import load_methods
from stillscan.app.pipeline.pipeline import run_with
from stillscan.app.pipeline.survey import Job
from stillscan.app.settings import load_settings
from stillscan.operators.errors import ExitCode
from stillscan.operators.reading.decoder import Decoder
from tests.app.backfill.in_process import derived_in, fill
from tests.bad_inputs import SECONDS, processor_seconds
from tests.series_factory import make_series

pytestmark = pytest.mark.data
REFUSED = {  # the others are derived
    "header_charset.dcm": "truncated-file",
    "header_iopnan.dcm": "invalid-attribute",
    "header_ippinf.dcm": "invalid-attribute",
    "header_spacing1.dcm": "invalid-attribute",
    "header_spacingnan.dcm": "invalid-attribute",
    "pixel_spacing_1000000_1.dcm": "invalid-attribute",
    "pixel_spacing_1000_1.dcm": "invalid-attribute",
    "spacing_picture.dcm": "invalid-attribute",
}
NAMES = (
    *REFUSED,
    "charset_codec_a.dcm",
    "charset_codec_b.dcm",
    "charset_codec_c.dcm",
    "enhanced_perframe_empty_items.dcm",
    "existing_sequence_empty_items.dcm",
    "header_codingscheme.dcm",
    "header_refseries.dcm",
    "series_number_20_digits.dcm",
    "series_number_negative.dcm",
    "vr_of_needed.dcm",
)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as decoder:
        yield decoder


def test_every_hostile_file_is_in_the_table(stillscan_data: Path) -> None:
    assert {file.name for file in (stillscan_data / "hostile").glob("*.dcm")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_file_alone_and_beside_a_good_series(
    name: str, stillscan_data: Path, tmp_path: Path, decoder: Decoder
) -> None:
    settings = load_settings()
    settings = replace(
        settings,
        denoise=replace(settings.denoise, mode="identity"),
        output=replace(settings.output, report=True),
    )
    source = tmp_path / "in"
    source.mkdir()
    shutil.copy(stillscan_data / "hostile" / name, source / "hostile.dcm")
    reason = REFUSED.get(name, "")
    before = processor_seconds()
    for beside in (False, True):
        job = Job(source, tmp_path / f"out {beside}", settings)
        result = run_with(job, decoder, load_methods, overlapped=False)
        good = [("derived", "")] if beside else []
        own = ("refused", reason) if reason else ("derived", "")
        assert sorted((each.status, each.reason) for each in result.outcomes) == sorted(
            [own, *good]
        )
        codes = (ExitCode.PARTLY_DERIVED if beside else ExitCode.BAD_INPUT, ExitCode.DERIVED)
        assert result.exit_code == codes[not reason]
        make_series(source / "good", slices=1)
    assert processor_seconds() - before < SECONDS
    for file in (tmp_path / "out True").rglob("*.dcm"):
        assert b"\xef\xbb\xbf" not in file.read_bytes()[:4096]  # a mark of the order of bytes


def test_hostile_files_through_a_back_fill_and_its_continuation(
    stillscan_data: Path, tmp_path: Path
) -> None:
    for number, file in enumerate(sorted((stillscan_data / "hostile").glob("*.dcm"))):
        (tmp_path / "in" / file.stem).mkdir(parents=True)
        content = with_own_uids(file.read_bytes(), number)
        (tmp_path / "in" / file.stem / file.name).write_bytes(content)
    make_series(tmp_path / "in" / "good", slices=1)
    for resume in (False, True):
        code, printed = fill(tmp_path / "in", tmp_path / "out", resume=resume)
        assert code == ExitCode.PARTLY_DERIVED
        assert "internal-fault" not in printed
        folders = Counter(map(len, derived_in(tmp_path / "out").values()))
        assert folders == {1: len(NAMES) - len(REFUSED) + 1}
