"""A bundle in MONAI Label's own `monaibundle` app gives the pixels of `stillscan denoise`."""

import shutil
import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import SimpleITK

import stillscan
from stillscan.app.bundles.choice import DEFAULT_BUNDLES

APP = Path(sys.prefix) / "monailabel" / "sample-apps" / "monaibundle"


def bundle_app(folder, studies):
    """The app as `monailabel start_server` loads it, with the bundle for MR in its `model`."""
    shutil.copytree(APP, folder)
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "mr").symlink_to(DEFAULT_BUNDLES / "mr", target_is_directory=True)
    spec = spec_from_file_location("monaibundle_main", folder / "main.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MyApp(str(folder), str(studies), {"models": "mr", "zoo_source": "ngc"})


def test_the_bundle_in_the_bundle_app_of_monai_label(tmp_path, save, noisy_image, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    # the app imports torchvision for pictures of labels; its wheel does not fit every torch wheel
    unused = SimpleNamespace(make_grid=None, save_image=None)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(utils=unused))
    monkeypatch.setitem(sys.modules, "torchvision.utils", unused)
    source = save(noisy_image, "head.nii.gz", tmp_path / "studies")
    app = bundle_app(tmp_path / "app", tmp_path / "studies")
    assert app.info()["models"]["mr"]["config"]["strength"] == 1.0
    settings = stillscan.load_settings()
    exact = replace(settings.denoise, engine="torch", precision="float32", device="cpu")
    for strength in (1.0, 0.5):
        request = {"model": "mr", "image": "head", "modality": "MR", "device": "cpu"}
        made = app.infer({**request, "strength": strength})
        settings = replace(settings, denoise=exact)
        expected = stillscan.denoise(source, modality="MR", strength=strength, settings=settings)
        result = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(made["file"])).T
        wanted = expected.image.get_fdata()
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, wanted, atol=1e-3 * expected.sigma)
        assert np.abs(wanted - nibabel.load(source).get_fdata()).std() > 5
