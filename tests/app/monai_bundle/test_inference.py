"""MONAI's tools on the configs of a bundle give the pixels of `stillscan denoise`."""

import subprocess
import sys
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch

import stillscan
from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.models.bundle import load_bundle
from stillscan.models.one_tensor import OneTensorStudent, input_planes
from stillscan.operators.denoising.plan import measure_noise
from stillscan.operators.errors import NothingToDoError
from tests.app.training.tiny_training import noisy_stack

SLICES = noisy_stack(4, 60)[:, :, :52]  # no multiple of 8
SERVES = {"ct": "CT", "mr": "MR", "xray": "CR"}
# oblique, and against the order of a scanner along the second and the third axis
TURNED = np.array(
    [[-0.8, 0.12, 0.3, -61.0], [-0.1, 1.1, -0.6, -77.5], [0.05, 0.2, -2.9, 14.25], [0, 0, 0, 1]]
)


def save(path, slices=SLICES, affine=TURNED, repeats=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.moveaxis(slices, 0, -1)
    if repeats > 1:
        noise = np.random.default_rng(5).normal(0, 20, (repeats, *values.shape))
        values = np.stack([values, *(values + each for each in noise[1:])], -1)
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), path)
    return path


def config_of(name, source, out, **changes):
    root = DEFAULT_BUNDLES / name
    return {
        "config_file": str(root / "configs" / "inference.yaml"),
        "logging_file": False,
        "bundle_root": str(root),
        "dataset_dir": str(source.parent),
        "output_dir": str(out),
        "device": "cpu",
        "modality": SERVES[name],
        **changes,
    }


def expected_of(source, name, **options):
    """What the command line makes of it, with the arithmetic of MONAI's tools."""
    settings = stillscan.load_settings()
    exact = replace(settings.denoise, engine="torch", precision="float32", device="cpu")
    settings = replace(settings, denoise=exact)
    return stillscan.denoise(source, modality=SERVES[name], settings=settings, **options)


def assert_same(path, image, unit):
    """Equal but for the order of float32 additions; `unit` is the standard deviation of noise."""
    made = nibabel.load(path)
    assert made.get_data_dtype() == np.float32
    assert made.shape == image.shape
    np.testing.assert_allclose(made.affine, image.affine, atol=1e-4)
    np.testing.assert_allclose(made.get_fdata(), image.get_fdata(), atol=1e-3 * unit)


@pytest.mark.parametrize(
    ("name", "repeats", "options"),
    [("ct", 1, {}), ("mr", 1, {"strength": 0.5}), ("mr", 2, {}), ("xray", 1, {})],
)
def test_a_run_gives_the_pixels_of_the_command_line(name, repeats, options, tmp_path):
    from monai.bundle import run

    source = save(tmp_path / "in" / "head.nii.gz", repeats=repeats)
    expected = expected_of(source, name, **options)
    assert np.abs(expected.image.get_fdata() - nibabel.load(source).get_fdata()).max() > 5
    run(**config_of(name, source, tmp_path / "out", save_uncertainty=True, **options))
    assert_same(tmp_path / "out" / "head_denoised.nii.gz", expected.image, expected.sigma)
    error = tmp_path / "out" / "head_uncertainty.nii.gz"
    assert_same(error, expected.uncertainty, expected.sigma)


def test_a_workflow_has_monais_properties_and_leaves_out_what_is_refused(tmp_path):
    from monai.bundle import ConfigWorkflow

    source = save(tmp_path / "in" / "head.nii.gz")
    save(tmp_path / "in" / "flat.nii.gz", np.ones((2, 64, 64)))
    settings = config_of("mr", source, tmp_path / "out")
    meta = str(DEFAULT_BUNDLES / "mr" / "configs" / "metadata.json")
    workflow = ConfigWorkflow(workflow_type="infer", meta_file=meta, **settings)
    workflow.initialize()
    assert workflow.check_properties() == []
    assert workflow.run() == [1]
    assert [each.reason for each in workflow.evaluator.refused] == ["no-noise"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["head_denoised.nii.gz"]


def test_a_folder_without_a_usable_image_is_an_error(tmp_path):
    from monai.bundle import run

    source = save(tmp_path / "in" / "flat.nii", np.ones((2, 64, 64)))
    with pytest.raises(RuntimeError) as error:
        run(**config_of("mr", source, tmp_path / "out"))
    assert isinstance(error.value.__cause__, NothingToDoError)


@pytest.mark.slow
def test_the_command_runs_from_anywhere(tmp_path):
    source = save(tmp_path / "in" / "head.nii.gz")
    root = DEFAULT_BUNDLES / "mr"
    command = [sys.executable, "-m", "monai.bundle", "run", "--bundle_root", root]
    command += ["--config_file", root / "configs" / "inference.yaml", "--modality", "MR"]
    command += ["--dataset_dir", source.parent, "--output_dir", tmp_path / "out"]
    done = subprocess.run(
        [str(word) for word in command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = expected_of(source, "mr")
    assert_same(tmp_path / "out" / "head_denoised.nii.gz", expected.image, expected.sigma)


def test_windows_give_nearly_the_same_as_the_whole_slice(tmp_path):
    """Every channel lies on the image's pixels, so MONAI's sliding windows may be used."""
    from monai.bundle import run

    slices = noisy_stack(2, 192)
    source = save(tmp_path / "in" / "head.nii.gz", slices)
    windows = {"inferer#roi_size": [128, 128], "inferer#overlap": 0.5}
    run(**config_of("mr", source, tmp_path / "out", **windows))
    inside = np.s_[40:-40, 40:-40]
    quiet = nibabel.load(tmp_path / "out" / "head_denoised.nii.gz").get_fdata()[inside]
    whole = expected_of(source, "mr").image.get_fdata()[inside]
    before = nibabel.load(source).get_fdata()[inside]
    assert np.abs(quiet - whole).mean() < 0.1 * np.abs(before - whole).mean()


def test_one_tensor_has_the_students_weights_and_answers():
    bundle = load_bundle(DEFAULT_BUNDLES / "mr", precision="float32")
    network = bundle.denoiser.network
    behind = OneTensorStudent(network.widths, network.middle_blocks).eval()
    behind.load_state_dict(network.state_dict())
    slices = torch.from_numpy(SLICES / 1000)
    _, noise = measure_noise("1", [SLICES[0]], [np.zeros(SLICES[0].shape, np.bool_)])
    planes = input_planes(slices[0], noise, behind.multiple)
    assert planes.shape == (9, 64, 56)
    with torch.no_grad():
        made = behind(planes[None])[0, :, :60, :52]
    estimate = bundle.denoiser.denoise(slices[:1, None], noise)
    torch.testing.assert_close(made[0], estimate.mean[0, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made[1], estimate.spread[0, 0], rtol=1e-3, atol=1e-5)
