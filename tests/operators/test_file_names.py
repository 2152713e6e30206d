"""Names of files reach no message where they may be the name of a patient."""

from pathlib import Path

import pytest

from stillscan.operators.errors import DamagedFileError
from stillscan.operators.internal_fault import InternalFaultError, setting_aside
from stillscan.operators.reading.file_names import shown, shown_below


@pytest.mark.parametrize(
    "name",
    ["02.dcm", "02_copy.dcm", "IM-0001-0023.dcm", "MR_0_0001.dcm", "1.2.840.113.dcm", "a.dcm"],
)
def test_a_name_of_numbers_and_words_of_the_trade_is_shown(name):
    assert shown(Path("somewhere", name)) == name


@pytest.mark.parametrize(
    "name",
    [
        "MUSTERMANN^ERIKA.dcm",
        "mueller_anna.dcm",
        "IM1 Li.dcm",
        "Weiß.dcm",
        "a\nb.dcm",
        "\x1b[31m.dcm",
        "1" * 200,
        "\udcff.dcm",
        "Ng.Li.dcm",
    ],
)
def test_any_other_name_is_a_digest(name):
    assert shown(Path(name)).startswith("file-")
    assert shown(Path(name)) == shown(Path("elsewhere", name))
    assert shown(Path(name)).isascii()


def test_folders_on_the_way_are_names_too():
    shown_path = shown_below(Path("/in/Mustermann/12/IM1.dcm"), Path("/in"))
    assert shown_path.endswith("/12/IM1.dcm")
    assert "Mustermann" not in shown_path
    assert shown_below(Path("/in/1.dcm"), Path("/in/1.dcm")) == "1.dcm"


def test_a_bug_becomes_its_kind_and_place():
    with pytest.raises(InternalFaultError) as caught, setting_aside():
        raise KeyError("Mustermann")
    assert "KeyError at tests/operators/test_file_names.py:" in str(caught.value)
    assert "Mustermann" not in str(caught.value)


def test_what_is_foreseen_or_concerns_more_goes_through():
    with pytest.raises(DamagedFileError), setting_aside():
        raise DamagedFileError("x")
    with pytest.raises(FileNotFoundError), setting_aside(OSError):
        raise FileNotFoundError
