"""The inference task under MONAI Label's own `BasicInferTask`: an image comes out, not a label."""

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from monailabel.datastore.utils.convert import dicom_to_nifti
from monailabel.interfaces.tasks.infer_v2 import InferType
from monailabel.tasks.infer.basic_infer import BasicInferTask
from pydicom.uid import generate_uid

from stillscan.app.bundles.choice import DEFAULT_BUNDLES, NoBundleError
from stillscan.app.library.images import ModalityUnknownError
from stillscan.app.settings import load_settings
from stillscan.deploy.monailabel.dicom_volume import read_volumes
from stillscan.deploy.monailabel.errors import (
    NotStoredError,
    UnsupportedFileError,
)
from stillscan.deploy.monailabel.infer_task import DenoiseTask, Denoising
from stillscan.deploy.monailabel.networks import Networks
from stillscan.models.bundle import find_bundles
from stillscan.operators.errors import InputError
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.selection import SelectionRules
from tests.deploy.monailabel.conftest import OBLIQUE
from tests.enhanced_factory import make_enhanced
from tests.series_factory import make_series

LABEL_PARAMETERS = {"result_extension": ".nrrd", "result_dtype": "uint8"}  # both clients send them
CPU = {"device": "cpu"}


@pytest.fixture(scope="module")
def shared():
    settings = load_settings()
    return Denoising(settings, Networks(settings), tuple(find_bundles(DEFAULT_BUNDLES)))


@pytest.fixture(scope="module")
def task(shared):
    return DenoiseTask(shared)


def test_it_is_a_valid_task_of_type_others(task):
    assert isinstance(task, BasicInferTask)
    assert task.is_valid()
    info = task.info()
    assert (info["type"], info["labels"]) == (InferType.OTHERS, [])
    assert info["config"]["strength"] == ["high", "medium", "low"]


def test_a_nifti_file_keeps_geometry_and_header(task, save, noisy_image):
    stored = noisy_image.astype(np.int16)
    source = save(stored, "a.nii.gz")
    path, facts = task({"image": str(source), "modality": "MR", **CPU})
    result = nibabel.load(path)
    assert path.endswith(".nii.gz")
    assert result.get_data_dtype() == np.float32
    assert result.shape == noisy_image.shape
    assert np.allclose(result.affine, OBLIQUE, atol=1e-5)
    assert result.header["descrip"].tobytes().startswith(b"kept")
    pixels = result.get_fdata()
    assert np.abs(pixels - pixels.round()).max() > 0
    assert facts["noise_after"] < 0.6 * facts["noise_before"]
    assert pixels.mean() == pytest.approx(stored.mean(), rel=1e-3)


def test_what_clients_ask_of_labels_does_not_round_an_image(task, save, noisy_image):
    source = save(noisy_image, "a.nii.gz")
    request = {"image": str(source), "modality": "MR", **CPU}
    floats = nibabel.load(task(request)[0]).get_fdata()
    path, _ = task({**request, **LABEL_PARAMETERS})
    image = SimpleITK.ReadImage(path)
    assert image.GetPixelID() == SimpleITK.sitkFloat32
    assert np.allclose(SimpleITK.GetArrayFromImage(image), floats.transpose(2, 1, 0), atol=1e-3)
    origin = np.array([-1, -1, 1]) * OBLIQUE[:3, 3]
    assert np.allclose(image.GetOrigin(), origin, atol=1e-4)


def test_a_nrrd_file_becomes_a_nrrd_file(task, tmp_path, noisy_image):
    source = SimpleITK.GetImageFromArray(noisy_image.transpose(2, 1, 0))
    source.SetSpacing((0.5, 0.7, 3.0))
    source.SetOrigin((1.0, -2.0, 3.0))
    SimpleITK.WriteImage(source, str(tmp_path / "a.nrrd"))
    path, _ = task({"image": str(tmp_path / "a.nrrd"), "modality": "MR", **CPU})
    result = SimpleITK.ReadImage(path)
    assert result.GetSize() == source.GetSize()
    assert np.allclose(result.GetSpacing(), source.GetSpacing())
    assert np.allclose(result.GetOrigin(), source.GetOrigin())


@pytest.mark.parametrize("turn", [(), (1,), (1, 2)])
def test_a_file_of_a_series_has_its_pixels_whatever_the_order_of_its_slices(task, tmp_path, turn):
    make_series(tmp_path / "in", modality="MR", slices=5, rows=64, columns=48)
    request = {"image": str(tmp_path / "in"), **CPU}
    expected = nibabel.load(task(request)[0])
    with Decoder() as decoder:
        (volume,) = read_volumes(tmp_path / "in", decoder, SelectionRules())
        block = volume.read(0, 5)
    noisy, affine = block.pixels.transpose(2, 1, 0), volume.affine_ras.copy()
    for axis in turn:
        affine[:3, 3] += affine[:3, axis] * (noisy.shape[axis] - 1)
        affine[:3, axis] *= -1
    nibabel.save(nibabel.Nifti1Image(np.flip(noisy, turn), affine), tmp_path / "a.nii")
    made = nibabel.load(task({**request, "image": str(tmp_path / "a.nii"), "modality": "MR"})[0])
    assert np.allclose(np.flip(made.get_fdata(), turn), expected.get_fdata(), atol=1e-3)


@pytest.mark.parametrize("extension", [".nii.gz", ".nrrd"])
def test_maps_are_further_components(task, save, noisy_image, extension):
    request = {"image": str(save(noisy_image, "a.nii")), "modality": "MR", **CPU}
    alone = nibabel.load(task(request)[0]).get_fdata()
    path, facts = task({**request, "maps": True, "result_extension": extension})
    if extension == ".nrrd":
        image = SimpleITK.ReadImage(path)
        assert image.GetNumberOfComponentsPerPixel() == 3
        found = SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0, 3)
        assert np.allclose(image.GetOrigin(), np.array([-1, -1, 1]) * OBLIQUE[:3, 3], atol=1e-4)
    else:
        found = nibabel.load(path).get_fdata()[:, :, :, 0]
    denoised, noise, uncertainty = np.moveaxis(found, -1, 0)
    assert np.allclose(denoised, alone, atol=1e-3)
    assert noise.mean() == pytest.approx(facts["noise_before"], rel=0.1)
    assert 0 < uncertainty.mean() < noise.mean()


def test_a_folder_of_several_films_is_denoised(task, tmp_path):
    make_series(tmp_path / "in", modality="CR", slices=3, rows=128, columns=96)
    path, facts = task({"image": str(tmp_path / "in"), **CPU})
    assert nibabel.load(path).shape == (96, 128, 3)
    assert [each["modality"] for each in facts["images"]] == ["CR"] * 3


def test_a_file_of_several_volumes_keeps_them(task, save, noisy_image):
    several = np.stack([noisy_image, noisy_image[::-1]], axis=-1)
    path, _ = task({"image": str(save(several, "a.nii")), "modality": "MR", **CPU})
    result = nibabel.load(path).get_fdata()
    assert result.shape == several.shape
    assert (
        np.abs(result[..., 1] - several[..., 1]).mean()
        < np.abs(result[..., 1] - several[..., 0]).mean()
    )


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_a_dicom_series_lies_where_monai_label_puts_it(task, tmp_path, modality):
    """The viewer may show MONAI Label's own conversion: the result must lie on it."""
    make_series(tmp_path / "in", modality=modality, slices=5, rows=64, columns=48)
    path, facts = task({"image": str(tmp_path / "in"), "result_extension": ".nrrd", **CPU})
    assert facts["modality"] == modality
    result = SimpleITK.ReadImage(path)
    shown = SimpleITK.ReadImage(dicom_to_nifti(str(tmp_path / "in")))
    assert result.GetSize() == shown.GetSize()
    onto = SimpleITK.Resample(
        SimpleITK.Cast(shown, SimpleITK.sitkFloat32), result, SimpleITK.Transform()
    )
    noisy, quiet = (SimpleITK.GetArrayFromImage(each) for each in (onto, result))
    assert abs((noisy - quiet).mean()) < 0.2 * (noisy - quiet).std()
    assert np.corrcoef(noisy.ravel(), quiet.ravel())[0, 1] > 0.9


def test_the_files_of_a_series_are_taken_before_what_was_converted_from_them(
    task, save, tmp_path, noisy_image
):
    make_series(tmp_path / "in", modality="CT")
    converted = save(noisy_image, "1.2.3.nii.gz")
    request = {"image": str(converted), "dicom": str(tmp_path / "in"), **CPU}
    assert task(request)[1]["modality"] == "CT"


def test_the_bundle_follows_the_modality(task, tmp_path):
    make_series(tmp_path / "mr", modality="MR")
    make_series(tmp_path / "dx", modality="DX", slices=1)
    assert task({"image": str(tmp_path / "mr"), **CPU})[1]["bundle"] == "mr"
    assert task({"image": str(tmp_path / "dx"), **CPU})[1]["bundle"] == "xray"


def test_a_certain_bundle_refuses_another_modality(shared, tmp_path):
    make_series(tmp_path, modality="CT")
    mr = next(each for each in shared.bundles if each.name == "mr")
    with pytest.raises(NoBundleError, match="CT"):
        DenoiseTask(shared, mr)({"image": str(tmp_path), **CPU})


def test_strength_is_what_the_request_says(task, save, noisy_image):
    request = {"image": str(save(noisy_image, "a.nii")), "modality": "MR", **CPU}
    whole, half = (
        nibabel.load(task({**request, "strength": strength})[0]).get_fdata()
        for strength in ("high", "low")
    )
    assert np.allclose(half - noisy_image, (whole - noisy_image) / 2, atol=1e-3)


def test_a_file_that_nobody_says_the_modality_of_is_refused(task, save, noisy_image):
    with pytest.raises(ModalityUnknownError):
        task({"image": str(save(noisy_image, "a.nii")), **CPU})


def test_a_picture_is_refused(task, tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(UnsupportedFileError):
        task({"image": str(tmp_path / "a.png"), "modality": "MR", **CPU})


def test_nothing_is_stored_where_there_is_no_dicomweb(task, tmp_path, save, noisy_image):
    make_series(tmp_path / "in")
    with pytest.raises(NotStoredError):
        task({"image": str(tmp_path / "in"), "store": True, **CPU})
    with pytest.raises(NotStoredError):
        task({"image": str(save(noisy_image, "a.nii")), "modality": "MR", "store": True, **CPU})


def test_what_no_image_can_hold_is_still_stored(shared, tmp_path):
    """Echoes at the same places: no one volume for a viewer, but one derived series."""
    make_series(tmp_path, slices=3)
    make_repeated(tmp_path)
    stored: list[str] = []
    storing = DenoiseTask(
        Denoising(
            shared.settings,
            shared.networks,
            shared.bundles,
            lambda files: stored.extend(path.name for path in files),
        )
    )
    path, facts = storing({"image": str(tmp_path), "store": True, **CPU})
    assert path is None
    assert len(stored) == 6
    assert facts["derived_series_instance_uid"].startswith("2.25.")
    with pytest.raises(InputError) as refused:
        storing({"image": str(tmp_path), **CPU})
    assert refused.value.reason == "not-one-volume"


def make_repeated(folder):
    """Every instance of the folder once more: another echo at the same place."""
    for number, path in enumerate(sorted(folder.glob("*.dcm"))):
        header = pydicom.dcmread(path)
        header.InstanceNumber = 100 + number
        header.SOPInstanceUID = generate_uid(entropy_srcs=[header.SOPInstanceUID])
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        header.save_as(folder / f"again_{number}.dcm")


def test_an_enhanced_image_becomes_one_volume(task, tmp_path):
    make_enhanced(tmp_path)
    path, _ = task({"image": str(tmp_path), **CPU})
    assert nibabel.load(path).ndim == 3
