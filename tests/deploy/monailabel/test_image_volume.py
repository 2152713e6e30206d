"""Which files of viewers are read."""

import pytest

from stillscan.deploy.monailabel.errors import UnsupportedFileError
from stillscan.deploy.monailabel.image_volume import suffix_of


@pytest.mark.parametrize(
    ("name", "suffix"), [("a.NII.gz", ".nii.gz"), ("a.b.nrrd", ".nrrd"), ("a.nii", ".nii")]
)
def test_endings_are_known(name, suffix):
    assert suffix_of(name) == suffix


@pytest.mark.parametrize("name", ["a.png", "a.gz", "folder"])
def test_other_files_are_refused_by_their_ending(name):
    with pytest.raises(UnsupportedFileError, match="expected"):
        suffix_of(name)
