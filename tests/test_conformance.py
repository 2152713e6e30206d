"""docs/conformance.md says what the code does, no less and no more."""

import re
from pathlib import Path

import pytest
from pydicom.datadict import keyword_for_tag
from pydicom.uid import (
    Comprehensive3DSRStorage,
    EnhancedSRStorage,
    ParametricMapStorage,
    SegmentationStorage,
)

from stillscan import __version__
from stillscan.app.dicomweb import query, retrieve
from stillscan.operators.anomaly.objects import CANDIDATE_TYPE
from stillscan.operators.reading.sandbox.pixel_data import (
    ENCAPSULATED_UNCOMPRESSED,
    NATIVE_SYNTAXES,
    PLUGINS,
)
from stillscan.operators.reading.selection import (
    LOSSY_SYNTAXES,
    MULTI_FRAME_SOP_CLASSES,
    SOP_CLASSES,
)
from stillscan.operators.writing.companions import measurement_report, parametric_maps
from stillscan.operators.writing.derivation_items import derivation_code
from stillscan.operators.writing.derived_header import PULSE_SEQUENCE, REMOVED, OutputOptions
from stillscan.operators.writing.pixel_encoding import SYNTAXES
from stillscan.operators.writing.provenance import (
    CODING_SCHEME_UID,
    IMPLEMENTATION_CLASS_UID,
    implementation_version_name,
)
from tests.derived import derive
from tests.enhanced_factory import make_enhanced
from tests.series_factory import make_series

STATEMENT = (Path(__file__).parent.parent / "docs" / "conformance.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """From this heading to the next."""
    return STATEMENT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def uids(text: str) -> dict[str, str]:
    """The UID of each row of its tables, with the row."""
    rows = [row for row in text.splitlines() if row.startswith("|")]
    return {found[1]: row for row in rows if (found := re.search(r"`([\d.]{10,})`", row))}


def keywords(text: str) -> set[str]:
    return set(re.findall(r"`([A-Z][A-Za-z]+)`", text))


def test_storage_classes_are_those_that_are_read() -> None:
    stated = {uid for uid in uids(section("Read")) if ".5.1.4.1.1." in uid}
    assert stated == {*SOP_CLASSES, *MULTI_FRAME_SOP_CLASSES}


def test_transfer_syntaxes_are_those_that_are_decoded() -> None:
    stated = {uid: row for uid, row in uids(section("Read")).items() if ".10008.1.2" in uid}
    assert stated.keys() == {*NATIVE_SYNTAXES, *PLUGINS, ENCAPSULATED_UNCOMPRESSED}
    for uid, row in stated.items():
        assert ("selection.lossy" in row) == (uid in LOSSY_SYNTAXES), row


def test_output_syntaxes_are_those_of_the_setting() -> None:
    rows = uids(section("Written: the derived series"))
    assert rows.keys() == set(SYNTAXES.values())
    for name, uid in SYNTAXES.items():
        assert f"`{name}`" in rows[uid]
    assert "(default)" in rows[SYNTAXES[OutputOptions().transfer_syntax]]


def test_removed_attributes_are_those_that_are_removed() -> None:
    paragraph = section("Written: the derived series").split("Removed, ")[1].split(";")[0]
    assert keywords(paragraph) == set(REMOVED)
    of_enhanced_mr = section("Written: the derived series").split("From Enhanced MR images ")[1]
    assert keywords(of_enhanced_mr) == {*PULSE_SEQUENCE}


@pytest.mark.parametrize("enhanced", [False, True])
def test_only_stated_attributes_differ_from_the_source(enhanced: bool, tmp_path: Path) -> None:
    if enhanced:
        make_enhanced(tmp_path / "source", modality="MR")
    else:
        make_series(tmp_path / "source")
    stated = keywords(section("Written: the derived series"))
    derivation = derive(tmp_path / "source", options=OutputOptions(synthetic_data=True))
    for source, derived in derivation.pairs:
        differ = {
            keyword_for_tag(tag)
            for tag in {*source.keys(), *derived.keys()}
            if tag not in source or tag not in derived or source[tag] != derived[tag]
        }
        assert differ <= stated
        assert len(differ) >= 12


def test_objects_and_codes_are_stated() -> None:
    objects = section("Written: objects beside the derived series")
    assert set(re.findall(r"1\.2\.840[\d.]+", objects)) == {
        ParametricMapStorage,
        EnhancedSRStorage,
        SegmentationStorage,
        Comprehensive3DSRStorage,
    }
    codes = section("Private codes")
    for code, meaning, _ in parametric_maps.LABELS.values():
        assert f"`{code}` | {meaning}" in codes
    assert "`{}` | {}".format(*CANDIDATE_TYPE) in codes
    for kind in ("noise-reduction", "temporal-interpolation"):
        assert any(f"`{each.value.decode()}` |" in codes for each in derivation_code(kind))
    for code, _ in measurement_report.DECISIONS.values():
        assert f"`{code}`" in codes


def test_our_own_uids_are_stated() -> None:
    assert f"`{IMPLEMENTATION_CLASS_UID}`" in STATEMENT
    assert f"`{CODING_SCHEME_UID}`" in STATEMENT
    assert f"`{implementation_version_name(__version__)}`" in STATEMENT


def test_the_back_fill_asks_as_the_statement_says():
    section = STATEMENT.split("## Network: the back-fill")[1].split("\n## ")[0]
    assert f"in pages of {query.PAGE} " in section
    for accepted in (query.ACCEPT["Accept"], retrieve.ACCEPT["Accept"]):
        assert f"`{accepted}`" in section


def test_kept_private_attributes_are_those_of_the_setting() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (\w{4}) \| (`.*`) \|$", STATEMENT, re.MULTILINE)
    stated = {
        f'({group},"{creator}",{element})'
        for creator, group, elements in rows
        for element in re.findall(r"`(\w\w)`", elements)
    }
    assert stated == set(OutputOptions().private_attributes)
