"""The app as MONAI Label finds and starts it, on a folder of NIfTI files."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from fastapi import HTTPException
from monailabel.interfaces.app import MONAILabelApp
from monailabel.utils.others.class_utils import get_class_of_subclass_from_file

import stillscan.deploy.monailabel
from stillscan.app.bundles.choice import DEFAULT_BUNDLES

FOLDER = Path(stillscan.deploy.monailabel.__file__).parent
CPU = {"device": "cpu"}


@pytest.fixture
def app(tmp_path, save, noisy_image):
    save(noisy_image, "head.nii.gz", tmp_path / "studies")
    kind = get_class_of_subclass_from_file("main", str(FOLDER / "main.py"), "MONAILabelApp")
    assert issubclass(kind, MONAILabelApp)
    return kind(str(tmp_path / "app"), str(tmp_path / "studies"), {})


def test_clients_see_a_model_for_each_bundle_and_one_that_chooses(app):
    info = app.info()
    assert set(info["models"]) == {"stillscan", "stillscan_mr", "stillscan_ct", "stillscan_xray"}
    assert list(info["trainers"]) == ["stillscan"]
    assert not info["labels"]


def test_an_image_of_the_datastore_is_denoised(app, noisy_image):
    answer = app.infer({"model": "stillscan_mr", "image": "head", **CPU})
    assert nibabel.load(answer["file"]).shape == noisy_image.shape
    assert answer["params"]["verdict"].startswith("accept")


def test_a_refusal_says_its_reason_to_the_client(app):
    with pytest.raises(HTTPException) as refused:
        app.infer({"model": "stillscan", "image": "head", **CPU})
    assert refused.value.status_code == 422
    assert refused.value.detail.startswith("modality-unknown: ")


def test_a_client_cannot_name_another_folder(app, tmp_path):
    """`dicom` is between app and task; from outside it is not heard."""
    request = {"model": "stillscan_mr", "image": "head", "dicom": str(tmp_path), **CPU}
    assert app.infer(request)["params"]["modality"] == "MR"


def test_a_result_that_is_saved_is_no_label(app):
    app.infer({"model": "stillscan_mr", "image": "head", "save_label": True, **CPU})
    store = app.datastore()
    assert store.get_label_uri("head", "denoised")
    assert not store.get_label_uri("head", "original")
    assert store.get_unlabeled_images() == ["head"]


def test_all_images_are_denoised_without_a_gpu(app):
    result = app.batch_infer({"model": "stillscan_mr", **CPU})
    assert list(result) == ["head"]
    assert result["head"]["params"]["bundle"] == "mr"


def test_a_bundle_that_was_trained_is_served_under_its_name(app, tmp_path):
    shutil.copytree(DEFAULT_BUNDLES / "mr", tmp_path / "app" / "model" / "ward7")
    assert "stillscan_ward7" in app.info()["models"]
    answer = app.infer({"model": "stillscan_ward7", "image": "head", **CPU})
    assert answer["params"]["bundle"] == "ward7"


def test_nothing_is_downloaded_for_segmentations(app, tmp_path):
    app._download_dcmqi_tools()
    assert not (tmp_path / "app" / "bin").exists()


def test_the_stand_in_says_why_there_are_no_segmentations():
    from stillscan.deploy.monailabel.stand_in import pydicom_seg

    with pytest.raises(ImportError, match="pydicom 2"):
        _ = pydicom_seg.MultiClassReader
    assert not np.any([name.startswith("Multi") for name in dir(pydicom_seg)])
