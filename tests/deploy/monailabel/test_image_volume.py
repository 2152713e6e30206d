"""Images of viewers become volumes and come back as they were."""

import numpy as np
import pytest

from stillscan.app.datasets.errors import ImageTooSmallError, NotFiniteValuesError
from stillscan.deploy.monailabel.errors import UnsupportedFileError
from stillscan.deploy.monailabel.image_volume import image_of, stack_of, suffix_of, volume_of


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (20, 30, 4), (20, 30, 4, 3)])
def test_a_stack_goes_back_into_its_image(shape):
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    stack = stack_of(image)
    assert stack.shape == (np.prod(shape[2:], dtype=int), 30, 20)
    assert np.array_equal(image_of(stack, shape), image)


def test_a_volume_has_the_values_of_its_image(noisy_image):
    volume = volume_of(noisy_image, "MR")
    block = volume.read(1, 4)
    assert (volume.rows, volume.columns, len(volume.slices)) == (48, 64, 5)
    assert np.array_equal(block.pixels, stack_of(noisy_image)[1:4])
    assert not block.padding.any()


def test_time_points_of_a_slice_share_its_place():
    image = np.zeros((16, 18, 3, 2), np.float32)
    assert [each.place for each in volume_of(image, "MR").slices] == [
        (0,),
        (0,),
        (1,),
        (1,),
        (2,),
        (2,),
    ]


def test_floats_are_not_rounded_to_stored_values(noisy_image):
    scaled = noisy_image / 7000
    assert np.array_equal(volume_of(scaled, "MR").read(0, 5).pixels, stack_of(scaled))


def test_only_ct_is_in_hounsfield_units(noisy_image):
    assert volume_of(noisy_image, "CT").unit == "HU"
    assert volume_of(noisy_image, "MR").unit == "1"


def test_slices_have_the_spacing_of_the_file(noisy_image):
    volume = volume_of(noisy_image, "CT", (0.7, 0.5))
    assert {each.plane.spacing_mm for each in volume.slices} == {(0.7, 0.5)}


def test_values_that_no_noise_makes_are_refused(noisy_image):
    noisy_image[3, 4, 2] = np.nan
    with pytest.raises(NotFiniteValuesError, match="1 values"):
        volume_of(noisy_image, "MR")


def test_an_image_too_small_for_noise_is_refused():
    with pytest.raises(ImageTooSmallError, match="8 x 40"):
        volume_of(np.zeros((40, 8, 3), np.float32), "MR")


@pytest.mark.parametrize(
    ("name", "suffix"), [("a.NII.gz", ".nii.gz"), ("a.b.nrrd", ".nrrd"), ("a.nii", ".nii")]
)
def test_endings_are_known(name, suffix):
    assert suffix_of(name) == suffix


@pytest.mark.parametrize("name", ["a.png", "a.gz", "folder"])
def test_other_files_are_refused_by_their_ending(name):
    with pytest.raises(UnsupportedFileError, match="expected"):
        suffix_of(name)
