"""A folder of DICOM becomes one volume, and its slices lie where an independent reader says."""

import highdicom
import numpy as np
import pydicom
import pytest

from stillscan.deploy.monailabel.dicom_volume import (
    NoSeriesError,
    Plane,
    affine_of,
    planes_of,
    read_volume,
)
from stillscan.deploy.monailabel.errors import NotChosenError, NotOneVolumeError
from stillscan.operators.errors import InputError
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.selection import SelectionRules
from tests.enhanced_factory import make_enhanced
from tests.series_factory import make_series

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
REVERSED = np.eye(4)[[2, 1, 0, 3]]  # [slice, row, column] is [k, j, i]


def planes_in(folder):
    with Decoder() as decoder:
        volume = read_volume(folder, decoder, SelectionRules())
        return [plane for block in volume.blocks() for plane in planes_of(block)]


def test_the_affine_is_that_of_another_reader(tmp_path):
    files = make_series(tmp_path, modality="CT", slices=6)
    expected = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in files])
    affine = affine_of(planes_in(tmp_path))
    found = LPS_TO_RAS @ affine @ REVERSED
    if not np.allclose(found, expected.affine):  # it may count the slices from the other side
        expected = expected.flip_spatial(0)
    assert np.allclose(found, expected.affine, atol=1e-6)


def test_frames_of_an_enhanced_image_lie_where_their_groups_say(tmp_path):
    make_enhanced(tmp_path)
    planes = planes_in(tmp_path)
    positions = [plane.position for plane in planes]
    assert None not in positions
    assert len(set(positions)) == len(positions) > 1
    assert planes[0].spacing_mm != (1.0, 1.0)


def test_an_image_without_geometry_lies_in_the_first_axes(tmp_path):
    make_series(tmp_path, modality="CR", slices=1)
    affine = affine_of(planes_in(tmp_path))
    assert np.count_nonzero(affine[:3, :3]) == 3


@pytest.mark.parametrize("places", [(0, 3, 6, 9, 0, 3, 6, 9), (0, 3, 6, 12), (2, 2, 2)])
def test_slices_that_are_no_even_stack_are_refused(places):
    planes = [Plane((10.0, 20.0, float(z))) for z in places]
    with pytest.raises(NotOneVolumeError, match="store"):
        affine_of(planes)


def test_positions_that_were_rounded_are_one_stack():
    planes = [Plane((0.0, 0.0, z)) for z in (0.0, 3.33, 6.67, 10.0)]
    assert affine_of(planes)[2, 2] == pytest.approx(10 / 3)


def test_turned_slices_are_refused():
    planes = [Plane((0, 0, 0)), Plane((0, 0, 3), (0, 1, 0), (1, 0, 0))]
    with pytest.raises(NotOneVolumeError, match="turned"):
        affine_of(planes)


def test_two_series_are_not_one_image(tmp_path):
    make_series(tmp_path, slices=2)
    make_series(tmp_path, slices=2, seed=1)
    with pytest.raises(NoSeriesError, match="2 series"):
        planes_in(tmp_path)


def test_a_refused_series_says_its_reason(tmp_path):
    make_series(tmp_path, slices=2, BurnedInAnnotation="YES")
    with pytest.raises(NotChosenError, match="burned-in-annotation: "):
        planes_in(tmp_path)


def test_a_damaged_file_is_not_left_out_silently(tmp_path):
    files = make_series(tmp_path)
    files[2].write_bytes(files[2].read_bytes()[:-900])
    with pytest.raises(InputError, match=files[2].name):
        planes_in(tmp_path)


def test_a_folder_without_images_says_so(tmp_path):
    (tmp_path / "note.txt").write_text("no image")
    with pytest.raises(NoSeriesError, match="no DICOM image"):
        planes_in(tmp_path)
