"""Private attributes of a derived series: none, but those on the allow-list (W8)."""

from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset

from stillscan.operators.writing.derived_header import OutputOptions
from stillscan.operators.writing.private_attributes import parse_private_attribute
from tests.derived import derive
from tests.series_factory import make_series


def private_source(folder: Path) -> list[Path]:
    files = make_series(folder, slices=1)
    dataset = pydicom.dcmread(files[0])
    siemens = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    siemens.add_new(0x0C, "IS", "1000")
    siemens.add_new(0x0F, "SH", "Fast")
    other = dataset.private_block(0x0019, "SOMEBODY", create=True)
    other.add_new(0x0C, "LO", "secret")
    nested = Dataset()
    nested.ReferencedSOPInstanceUID = "1.2.3"
    nested.private_block(0x0029, "SOMEBODY", create=True).add_new(0x01, "LO", "secret")
    deeper = Dataset()
    deeper.ReferencedImageSequence = [nested]
    dataset.RelatedSeriesSequence = [deeper]
    dataset.save_as(files[0])
    return files


def private_tags(dataset: Dataset) -> set[int]:
    found: set[int] = set()
    dataset.walk(lambda _, element: found.add(element.tag) if element.tag.is_private else None)
    return found


def test_private_attributes_go_but_for_the_allowed_ones(tmp_path: Path) -> None:
    private_source(tmp_path / "source")
    ((_, derived),) = derive(tmp_path / "source").pairs
    assert private_tags(derived) == {0x00190010, 0x0019100C}
    assert derived[0x0019100C].value == 1000
    nested = derived.RelatedSeriesSequence[0].ReferencedImageSequence[0]
    assert nested.ReferencedSOPInstanceUID == "1.2.3"


def test_the_allow_list_is_an_option(tmp_path: Path) -> None:
    private_source(tmp_path / "source")
    options = OutputOptions(private_attributes=('(0019,"SOMEBODY",0c)', '(0029,"SOMEBODY",01)'))
    ((_, derived),) = derive(tmp_path / "source", options=options).pairs
    assert private_tags(derived) == {0x00190011, 0x0019110C, 0x00290010, 0x00291001}


def test_no_private_attribute_stays_with_an_empty_allow_list(tmp_path: Path) -> None:
    private_source(tmp_path / "source")
    options = OutputOptions(private_attributes=())
    ((_, derived),) = derive(tmp_path / "source", options=options).pairs
    assert private_tags(derived) == set()


@pytest.mark.parametrize("text", ["0019,SIEMENS,0c", '(0018,"X",0c)', '(0019,"X",c)', ""])
def test_a_private_attribute_is_written_as_in_the_standard(text: str) -> None:
    with pytest.raises(ValueError, match="private attribute"):
        parse_private_attribute(text)
