"""A folder of DICOM becomes one volume, or the reason is said."""

import pytest

from stillscan.deploy.monailabel.dicom_volume import NoSeriesError, read_volumes
from stillscan.deploy.monailabel.errors import NotChosenError
from stillscan.operators.errors import InputError
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.selection import SelectionRules
from tests.series_factory import make_series


def volumes_in(folder):
    with Decoder() as decoder:
        return read_volumes(folder, decoder, SelectionRules())


def test_the_one_series_of_a_folder_is_its_volume(tmp_path):
    make_series(tmp_path, slices=3)
    (volume,) = volumes_in(tmp_path)
    assert len(volume.slices) == 3


def test_each_film_of_a_series_is_a_volume_in_the_order_of_their_numbers(tmp_path):
    make_series(tmp_path, modality="CR", slices=3)
    found = [each.slices[0].instance_number for each in volumes_in(tmp_path)]
    assert len(found) == 3
    assert found == sorted(found)


def test_two_series_are_not_one_image(tmp_path):
    make_series(tmp_path, slices=2)
    make_series(tmp_path, slices=2, seed=1)
    with pytest.raises(NoSeriesError, match="2 series"):
        volumes_in(tmp_path)


def test_a_refused_series_says_its_reason(tmp_path):
    make_series(tmp_path, slices=2, BurnedInAnnotation="YES")
    with pytest.raises(NotChosenError, match="burned-in-annotation: "):
        volumes_in(tmp_path)


def test_a_damaged_file_is_not_left_out_silently(tmp_path):
    files = make_series(tmp_path)
    files[2].write_bytes(files[2].read_bytes()[:-900])
    with pytest.raises(InputError, match=files[2].name):
        volumes_in(tmp_path)


def test_a_folder_without_images_says_so(tmp_path):
    (tmp_path / "note.txt").write_text("no image")
    with pytest.raises(NoSeriesError, match="no DICOM image"):
        volumes_in(tmp_path)
