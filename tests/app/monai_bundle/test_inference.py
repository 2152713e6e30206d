"""`python -m monai.bundle run` of a bundle's inference config gives the student's own pixels."""

import subprocess
import sys

import nibabel
import numpy as np
import pytest
import torch

from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.app.datasets.noisy_folder import find_sources
from stillscan.app.monai_bundle.inference import SeriesDataset
from stillscan.models.bundle import load_bundle
from stillscan.models.one_tensor import OneTensorStudent, input_planes
from stillscan.operators.denoising.plan import measure_noise
from stillscan.operators.errors import NothingToDoError
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.selection import SelectionRules
from stillscan.operators.volume import unit_of
from tests.app.training.tiny_training import noisy_stack
from tests.series_factory import make_series

SLICES = noisy_stack(2, 60)[:, :, :52]  # no multiple of 8
SERVES = {"ct": "CT", "mr": "MR", "xray": "CR"}


def run_inference(name, folder, out, **changes):
    """What `python -m monai.bundle run` calls."""
    from monai.bundle import run

    root = DEFAULT_BUNDLES / name
    run(
        config_file=str(root / "configs" / "inference.yaml"),
        logging_file=False,
        bundle_root=str(root),
        dataset_dir=str(folder),
        output_dir=str(out),
        device="cpu",
        modality=SERVES[name],
        **changes,
    )


def students_pixels(name, slices):
    """The student called by hand: scaling and noise of the series, one pass, back again."""
    bundle = load_bundle(DEFAULT_BUNDLES / name, precision="float32")
    no_padding = [np.zeros(plane.shape, np.bool_) for plane in slices]
    scaling, noise = measure_noise(unit_of(SERVES[name]), list(slices), no_padding)
    images = torch.from_numpy(scaling.to_network(slices))[:, None]
    estimates = [bundle.denoiser.denoise(image[None], noise) for image in images]
    means = torch.cat([estimate.mean for estimate in estimates])[:, 0].numpy()
    spreads = torch.cat([estimate.spread for estimate in estimates])[:, 0].numpy()
    return scaling.to_modality(means), spreads / np.float32(scaling.gain)


@pytest.mark.parametrize("name", list(SERVES))
def test_inference_gives_the_students_pixels(name, tmp_path):
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in" / "a.npz", SLICES)
    run_inference(name, tmp_path / "in", tmp_path / "out", save_spread=True)
    mean, spread = students_pixels(name, SLICES)
    quiet = np.load(tmp_path / "out" / "a_arr_0_denoised.npz")["slices"]
    assert quiet.dtype == np.float32
    assert np.abs(mean - SLICES).max() > 5  # something was done
    np.testing.assert_allclose(quiet, mean, rtol=1e-4, atol=0.05)
    said = np.load(tmp_path / "out" / "a_arr_0_spread.npz")["slices"]
    np.testing.assert_allclose(said, spread, rtol=1e-3, atol=0.05)


@pytest.mark.slow
def test_the_command_runs_from_anywhere(tmp_path):
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in" / "a.npz", SLICES)
    root = DEFAULT_BUNDLES / "mr"
    command = [sys.executable, "-m", "monai.bundle", "run", "--bundle_root", root]
    command += ["--config_file", root / "configs" / "inference.yaml", "--modality", "MR"]
    command += ["--dataset_dir", tmp_path / "in", "--output_dir", tmp_path / "out"]
    done = subprocess.run(
        [str(word) for word in command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    quiet = np.load(tmp_path / "out" / "a_arr_0_denoised.npz")["slices"]
    np.testing.assert_allclose(quiet, students_pixels("mr", SLICES)[0], rtol=1e-4, atol=0.05)


def test_nifti_keeps_its_shape_and_place(tmp_path):
    (tmp_path / "in").mkdir()
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = 5, 6, 7
    volume = np.moveaxis(SLICES, 0, -1)[..., None]  # [x, y, slice, repetition]
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "in" / "head.nii.gz")
    run_inference("mr", tmp_path / "in", tmp_path / "out")
    made = nibabel.load(tmp_path / "out" / "head_denoised.nii.gz")
    assert made.shape == volume.shape
    assert made.get_data_dtype() == np.float32
    np.testing.assert_allclose(made.affine, affine)
    expected = np.moveaxis(students_pixels("mr", SLICES)[0], 0, -1)[..., None]
    np.testing.assert_allclose(made.get_fdata(), expected, rtol=1e-4, atol=0.05)


def test_dicom_becomes_nifti_in_its_place(tmp_path):
    make_series(tmp_path / "in", slices=3, rows=64, columns=56)
    run_inference("mr", tmp_path / "in", tmp_path / "out")
    (path,) = (tmp_path / "out").iterdir()
    made = nibabel.load(path)
    assert made.shape == (56, 64, 3)
    with Decoder() as decoder:
        (source,), _, _ = find_sources(tmp_path / "in", decoder, SelectionRules())
        volume = source.origin
        block = volume.read(0, 3)
        affine = volume.affine_ras
    np.testing.assert_allclose(made.affine, affine)
    rows, columns = (float(each) for each in block.headers[0].PixelSpacing)
    for number, header in enumerate(block.headers):
        left, back, up = (float(each) for each in header.ImagePositionPatient)
        np.testing.assert_allclose((affine @ [0, 0, number, 1])[:3], (-left, -back, up), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :2], axis=0), (columns, rows))
    mean, _ = students_pixels("mr", block.pixels)
    np.testing.assert_allclose(made.get_fdata().transpose(2, 1, 0), mean, rtol=1e-4, atol=0.05)


def test_dicom_that_is_no_even_stack_becomes_npz(tmp_path):
    files = make_series(tmp_path / "in", slices=4, rows=64, columns=56)
    files[1].unlink()  # a gap
    run_inference("mr", tmp_path / "in", tmp_path / "out")
    (path,) = (tmp_path / "out").iterdir()
    assert path.name.endswith("_denoised.npz")
    assert np.load(path)["slices"].shape == (3, 64, 56)


def test_windows_give_nearly_the_same_as_the_whole_slice(tmp_path):
    """Every channel lies on the image's pixels, so MONAI's sliding windows may be used."""
    (tmp_path / "in").mkdir()
    slices = noisy_stack(1, 192)
    np.savez(tmp_path / "in" / "a.npz", slices)
    windows = {"_target_": "SlidingWindowInferer", "roi_size": [128, 128], "overlap": 0.5}
    run_inference("mr", tmp_path / "in", tmp_path / "out", inferer=windows)
    quiet = np.load(tmp_path / "out" / "a_arr_0_denoised.npz")["slices"]
    whole = students_pixels("mr", slices)[0]
    inside = np.s_[:, 40:-40, 40:-40]
    assert np.abs(quiet - whole)[inside].mean() < 0.1 * np.abs(slices - whole)[inside].mean()


def test_the_series_whose_noise_cannot_be_measured_is_left_out(tmp_path):
    np.savez(tmp_path / "flat.npz", np.ones((2, 64, 64), np.float32))
    with pytest.raises(NothingToDoError):
        SeriesDataset(tmp_path, "MR")


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
