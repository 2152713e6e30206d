"""The affine of a volume: the standard's equation, and what other readers make of the files."""

import warnings
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillscan.operators.errors import NotOneVolumeError
from stillscan.operators.geometry import Plane, affine_lps, affine_ras
from tests.derived import real_volumes, volumes_in
from tests.enhanced_factory import ENHANCED
from tests.series_factory import make_series

REVERSED = np.eye(4)[[2, 1, 0, 3]]  # [slice, row, column] is [k, j, i]

millimetres = st.floats(-500, 500)
spacings = st.floats(0.1, 10)


@st.composite
def stacks(draw: st.DrawFn) -> list[Plane]:
    """Parallel, evenly spaced planes of any direction; the stack may lean (a tilted gantry)."""
    angles = [draw(st.floats(-3, 3)) for _ in range(3)]
    across, down, normal = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[[i, i, j, j], [i, j, i, j]] = (
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        )
        across, down, normal = across @ turn, down @ turn, normal @ turn
    first = np.array([draw(millimetres) for _ in range(3)])
    step = draw(spacings) * normal + draw(st.floats(-1, 1)) * down
    spacing_mm = draw(spacings), draw(spacings)
    return [
        Plane(tuple(first + index * step), tuple(across), tuple(down), spacing_mm)
        for index in range(draw(st.integers(2, 9)))
    ]


@given(stacks())
def test_every_image_lies_where_its_header_says(planes: list[Plane]):
    affine = affine_lps(planes)
    for number, plane in enumerate(planes):
        np.testing.assert_allclose((affine @ [0, 0, number, 1])[:3], plane.position, atol=1e-9)


@given(stacks(), st.integers(0, 511), st.integers(0, 511))
def test_columns_and_rows_are_counted_as_the_standard_says(planes: list[Plane], i: int, j: int):
    """PS3.3 C.7.6.2.1.1: column i goes along the row by the spacing between columns."""
    plane = planes[-1]
    along_row = i * plane.spacing_mm[1] * np.array(plane.across)
    along_column = j * plane.spacing_mm[0] * np.array(plane.down)
    found = affine_lps(planes) @ [i, j, len(planes) - 1, 1]
    np.testing.assert_allclose(found[:3], plane.position + along_row + along_column, atol=1e-6)


@given(stacks())
def test_ras_turns_the_first_two_axes_of_lps(planes: list[Plane]):
    np.testing.assert_array_equal(affine_ras(planes), np.diag([-1, -1, 1, 1]) @ affine_lps(planes))


@given(stacks(), st.floats(0.2, 3), st.sampled_from([-1, 1]))
def test_a_slice_off_its_place_is_refused(planes: list[Plane], off: float, side: int):
    last = planes[-1]
    assert last.position is not None
    step = np.subtract(last.position, planes[-2].position or last.position)
    length = np.linalg.norm(step)
    wrong = side * off / 5 * max(length, *last.spacing_mm) / length
    moved = np.add(last.position, (1 + wrong) * step)
    with pytest.raises(NotOneVolumeError):
        affine_lps([*planes, replace(last, position=tuple(moved))])


@pytest.mark.parametrize("places", [(0, 3, 6, 9, 0, 3, 6, 9), (0, 3, 6, 12), (2, 2, 2), (1, 1)])
def test_slices_that_are_no_even_stack_are_refused(places: tuple[int, ...]):
    planes = [Plane((10.0, 20.0, float(z))) for z in places]
    with pytest.raises(NotOneVolumeError, match=f"of {len(places)} slices|of {len(places)} is"):
        affine_lps(planes)


def test_turned_slices_are_refused():
    planes = [Plane((0, 0, 0)), Plane((0, 0, 3), (0, 1, 0), (1, 0, 0))]
    with pytest.raises(NotOneVolumeError, match="slice 2 of 2 is turned"):
        affine_lps(planes)


def test_slices_of_other_pixel_spacing_are_refused():
    planes = [Plane((0, 0, 0)), Plane((0, 0, 3), spacing_mm=(1.0, 1.1))]
    with pytest.raises(NotOneVolumeError, match="slice 2 of 2 has another pixel spacing"):
        affine_lps(planes)


def test_positions_that_were_rounded_are_one_stack():
    planes = [Plane((0.0, 0.0, z)) for z in (0.0, 3.33, 6.67, 10.0)]
    assert affine_lps(planes)[2, 2] == pytest.approx(10 / 3)


def test_a_single_slice_is_as_thick_as_its_header_says():
    affine = affine_lps([Plane((1, 2, 3), (0, 1, 0), (0, 0, 1), (2, 3), 5)])
    np.testing.assert_array_equal(affine, [[0, 0, 5, 1], [3, 0, 0, 2], [0, 2, 0, 3], [0, 0, 0, 1]])


def test_images_without_geometry_lie_in_the_first_axes(tmp_path: Path):
    make_series(tmp_path, modality="CR", slices=1)
    (volume,) = volumes_in(tmp_path)
    assert volume.slices[0].plane.position is None
    affine = affine_lps([volume.slices[0].plane] * 3)
    spacing = pydicom.dcmread(next(tmp_path.iterdir())).ImagerPixelSpacing
    rows, columns = (float(each) for each in spacing)
    np.testing.assert_array_equal(affine, np.diag([columns, rows, 1, 1]))


@pytest.mark.parametrize("modality", ["MR", "CT", "PT"])
def test_highdicom_finds_the_same_affine(modality: str, tmp_path: Path):
    files = make_series(tmp_path, modality=modality, slices=6)
    (volume,) = volumes_in(tmp_path)
    expected = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in files])
    found = volume.affine_lps @ REVERSED
    if not np.allclose(found, expected.affine):  # it may count the slices from the other side
        expected = expected.flip_spatial(0)
    np.testing.assert_allclose(found, expected.affine, atol=1e-6)


def test_nibabel_finds_the_same_affine_of_one_image(tmp_path: Path):
    (file,) = make_series(tmp_path, modality="MR", slices=1)
    (volume,) = volumes_in(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says of itself that it is experimental
        from nibabel.nicom.dicomwrappers import wrapper_from_data
    header = pydicom.dcmread(file)
    header.pop("SpacingBetweenSlices", None)  # it takes that where it is there
    # it counts rows first, so its normal is the other one
    expected = wrapper_from_data(header).affine[:, [1, 0, 2, 3]] @ np.diag([1, 1, -1, 1])
    np.testing.assert_allclose(volume.affine_lps, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["Enhanced CT", "Enhanced MR frames out of order"])
def test_highdicom_finds_the_same_affine_of_frames(kind: str, tmp_path: Path):
    (file,) = ENHANCED[kind](tmp_path)
    (volume,) = volumes_in(tmp_path)
    expected = highdicom.imread(file).get_volume_geometry()
    assert expected is not None
    found = volume.affine_lps @ REVERSED
    if not np.allclose(found, expected.affine):
        expected = expected.flip_spatial(0)
    np.testing.assert_allclose(found, expected.affine, atol=1e-6)


@pytest.mark.data
def test_real_series_lie_where_their_headers_say(stillscan_data: Path, tmp_path: Path):
    tried = 0
    for _, volume in real_volumes(stillscan_data, tmp_path):
        try:
            affine = volume.affine_lps
        except NotOneVolumeError:
            continue
        for number in {0, len(volume.slices) // 2, len(volume.slices) - 1}:
            header = pydicom.dcmread(volume.slices[number].path, stop_before_pixels=True)
            if "ImagePositionPatient" in header and "PixelSpacing" in header:
                found = (affine @ [0, 0, number, 1])[:3]
                np.testing.assert_allclose(found, header.ImagePositionPatient, atol=0.05)
                np.testing.assert_allclose(
                    np.linalg.norm(affine[:3, 1::-1], axis=0), header.PixelSpacing, rtol=1e-3
                )
                tried += 1
    assert tried > 10
