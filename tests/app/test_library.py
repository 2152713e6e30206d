"""`stillscan.denoise` and its neighbours: one pipeline, whatever the kind of the source."""

import doctest
import os
import subprocess
import sys
import threading
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch

import stillscan
from stillscan.app.bundles.choice import load_methods
from stillscan.app.library import functions
from stillscan.operators.denoising.gate import GateRefusedError
from stillscan.operators.denoising.gate_limits import GateLimits
from tests.series_factory import make_series

SIGMA = 5.0
EXACT = {"device": "cpu"}


def noisy(*shape: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[-2], : shape[-1]]
    clean = 100 + 40 * ((rows - 30) ** 2 + (columns - 25) ** 2 < 300)
    return (clean + generator.normal(0, SIGMA, shape)).astype(np.float32)


def pixels_of(datasets: list[pydicom.Dataset]) -> np.ndarray:
    """In modality units, in the order of the list."""
    return np.stack(
        [
            each.pixel_array * float(each.get("RescaleSlope", 1))
            + float(each.get("RescaleIntercept", 0))
            for each in datasets
        ]
    )


def test_the_examples_of_the_docstrings_hold():
    done = doctest.testmod(functions)
    assert done.attempted > 10
    assert done.failed == 0


def test_the_package_is_imported_in_no_time():
    code = (
        "import time; t = time.perf_counter(); import stillscan, sys; "
        "print(time.perf_counter() - t, *sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert float(said[0]) < 0.15
    assert not {"numpy", "torch", "pydicom", "nibabel", "holoscan"} & set(said[1:])


@pytest.mark.parametrize("shape", [(64, 48), (3, 64, 48), (2, 3, 64, 48)])
def test_an_array_keeps_its_shape_and_loses_noise(shape):
    image = noisy(*shape)
    result = stillscan.denoise(image, modality="MR", **EXACT)
    assert result.image.shape == result.noise.shape == result.uncertainty.shape == shape
    assert result.image.dtype == np.float32
    assert result.sigma == pytest.approx(SIGMA, rel=0.2)
    flat = np.s_[..., 50:62, 5:40]
    assert result.image[flat].std() < 0.5 * image[flat].std()
    assert result.verdict.decision != "refuse"
    (outcome,) = result.outcomes
    assert (outcome.status, outcome.slices) == ("derived", np.prod(shape[:-2], dtype=int))
    assert outcome.noise_after < outcome.noise_before


def test_a_tensor_stays_a_tensor():
    image = noisy(2, 64, 64)
    result = stillscan.denoise(torch.from_numpy(image), modality="MR", **EXACT)
    assert isinstance(result.image, torch.Tensor)
    assert isinstance(result.uncertainty, torch.Tensor)
    as_array = stillscan.denoise(image, modality="MR", **EXACT)
    assert np.array_equal(result.image.numpy(), as_array.image)
    coarse = stillscan.denoise(torch.from_numpy(image).bfloat16(), modality="MR", **EXACT)
    assert coarse.image.dtype == torch.float32


def test_strength_is_a_share_of_the_correction():
    image = noisy(64, 64)
    whole = stillscan.denoise(image, modality="MR", **EXACT).image - image
    part = stillscan.denoise(image, modality="MR", strength=0.3, **EXACT).image - image
    low = stillscan.denoise(image, modality="MR", strength="low", **EXACT).image - image
    assert np.allclose(part, 0.3 * whole, atol=1e-4)
    assert np.allclose(low, 0.5 * whole, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "modality-unknown"),
        ({"modality": "CT"}, "spacing-unknown"),
        ({"modality": "US"}, "no-bundle-for-modality"),
        ({"modality": "MR", "strength": 1.5}, "bad-settings"),
        ({"modality": "MR", "strength": "hihg"}, "bad-settings"),
        ({"modality": "MR", "mode": "studnet"}, "bad-settings"),
        ({"modality": "MR", "output": "somewhere"}, "bad-settings"),
    ],
)
def test_what_is_missing_or_wrong_is_named(options, reason):
    with pytest.raises(stillscan.StillscanError) as caught:
        stillscan.denoise(noisy(64, 64), **options)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((64, 64)), "no-noise"),
        (np.zeros((64, 8)), "image-too-small"),
        (np.full((64, 64), np.nan), "not-finite-values"),
        (np.zeros(64), "unsupported-array"),
        (np.zeros((64, 64), complex), "unsupported-array"),
        ([], "bad-settings"),
        (7, "bad-settings"),
        (nibabel.MGHImage(np.zeros((64, 64, 2), np.float32), np.eye(4)), "bad-settings"),
    ],
)
def test_what_cannot_be_denoised_is_refused(image, reason):
    with pytest.raises(stillscan.StillscanError) as caught:
        stillscan.denoise(image, modality="MR", **EXACT)
    assert caught.value.reason == reason


def test_the_gate_refuses_an_array_too():
    settings = stillscan.load_settings()
    strict = functions.replace(settings, gate=GateLimits(residual_deviation=0.1))
    with pytest.raises(GateRefusedError):
        stillscan.denoise(noisy(64, 64), modality="MR", settings=strict, **EXACT)


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ct") / "in"
    make_series(folder, modality="CT", slices=5)
    return folder


def test_a_folder_of_dicom_gives_derived_instances_with_their_maps(ct, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = stillscan.denoise(ct, **EXACT)
    assert len(result.image) == len(result.noise) == len(result.uncertainty) == 5
    assert {each.SeriesDescription[-9:] for each in result.image} == {"original)"}
    assert all(map.shape == (64, 64) for map in result.noise + result.uncertainty)
    assert result.sigma == result.outcomes[0].noise_before
    assert np.median(result.noise) == pytest.approx(result.sigma, rel=0.3)
    assert result.verdict.decision.startswith("accept")
    assert not list(tmp_path.iterdir()), "nothing is written unless asked"


@pytest.mark.slow
def test_the_command_line_derives_the_same_instances(ct, tmp_path):
    result = stillscan.denoise(ct, output=tmp_path / "out", **EXACT)
    program = Path(sys.executable).with_name("stillscan")
    command = [program, "denoise", ct, tmp_path / "cli", "--device", "cpu"]
    subprocess.run(command, check=True, capture_output=True)
    for each in result.image:
        name = f"{each.SeriesInstanceUID}/{each.SOPInstanceUID}.dcm"
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "cli" / name).read_bytes()


def test_data_sets_in_memory_are_denoised_as_files_are(ct):
    datasets = [pydicom.dcmread(file) for file in sorted(ct.iterdir())]
    before = [each.to_json() for each in datasets]
    for each in datasets:
        each.filename = None
    in_memory = stillscan.denoise(datasets, **EXACT)
    on_disk = stillscan.denoise(ct, **EXACT)
    assert [each.to_json() for each in in_memory.image] == [
        each.to_json() for each in on_disk.image
    ]
    assert [each.to_json() for each in datasets] == before


def test_several_series_are_denoised_and_the_refused_are_listed(ct, tmp_path):
    folder = tmp_path / "in"
    make_series(folder / "a", slices=2)
    make_series(folder / "b", slices=3, seed=1, rows=48)
    make_series(folder / "c", slices=2, seed=2, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    result = stillscan.denoise(folder, **EXACT)
    assert len(result.image) == len(result.noise) == 5
    assert [map.shape for map in result.noise] == [each.pixel_array.shape for each in result.image]
    assert result.sigma is None
    assert sorted(each.status for each in result.outcomes) == ["derived", "derived", "not-selected"]
    statuses = sorted(each.status for each in stillscan.inspect(folder))
    assert statuses == ["not-selected", "would-denoise", "would-denoise"]


def test_a_folder_without_a_result_is_an_error_with_its_outcomes(tmp_path):
    make_series(tmp_path / "in", slices=2, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    with pytest.raises(functions.NothingDerivedError, match="localizer") as caught:
        stillscan.denoise(tmp_path / "in", **EXACT)
    assert [each.reason for each in caught.value.outcomes] == ["localizer"]


def nifti_of(folder: Path, flips: tuple[int, ...]) -> nibabel.Nifti1Image:
    """The series of a folder as a converter writes it, with some axes the other way round."""
    with stillscan.Decoder() as decoder:
        found = stillscan.find_series(folder, decoder, stillscan.load_settings().selection)
        volume = stillscan.read_series(found.candidates[0], decoder)
        block = volume.read(0, len(volume.slices))
    planes = len({each.place for each in volume.slices})
    first = functions.replace(volume, slices=volume.slices[:planes])
    stack = block.pixels.reshape(-1, planes, volume.rows, volume.columns).transpose(3, 2, 1, 0)
    affine = first.affine_ras
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (stack.shape[axis] - 1)
        affine[:3, axis] *= -1
    stack = np.flip(stack, flips)
    return nibabel.Nifti1Image(stack if stack.shape[3] > 1 else stack[..., 0], affine)


@pytest.mark.parametrize("flips", [(), (1,), (0, 2), (0, 1, 2)])
def test_nifti_and_dicom_of_one_series_give_the_same_pixels(ct, flips):
    image = nifti_of(ct, flips)
    result = stillscan.denoise(image, modality="CT", **EXACT)
    dicom = stillscan.denoise(ct, **EXACT)
    assert result.sigma == pytest.approx(dicom.sigma)
    assert np.array_equal(result.image.affine, image.affine)
    restored = np.flip(result.image.get_fdata(), flips).transpose(2, 1, 0)
    assert np.abs(restored - pixels_of(dicom.image)).max() <= 0.5 + 1e-3


def test_four_axes_of_nifti_are_repeated_acquisitions_as_in_dicom(tmp_path):
    make_series(
        tmp_path / "in",
        slices=6,
        SliceLocation=None,
        ImagePositionPatient=lambda index: [-100.0, -100.0, 5.0 * (index % 3)],
        AcquisitionNumber=lambda index: 1 + index // 3,
    )
    image = nifti_of(tmp_path / "in", (1,))
    assert image.shape == (64, 64, 3, 2)
    result = stillscan.denoise(image, modality="MR", **EXACT)
    dicom = stillscan.denoise(tmp_path / "in", **EXACT)
    assert dicom.outcomes[0].repeats is not None
    assert result.outcomes[0].repeats == dicom.outcomes[0].repeats
    restored = np.flip(result.image.get_fdata(), 1).transpose(3, 2, 1, 0).reshape(6, 64, 64)
    assert np.abs(restored - pixels_of(dicom.image)).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_nifti_file_is_written_where_asked(tmp_path, suffix):
    source = tmp_path / f"in{suffix}"
    image = nibabel.Nifti1Image(noisy(48, 64, 3).astype(np.int16), np.diag([2, 2, 3, 1]))
    image.header.set_slope_inter(1, 0)
    nibabel.save(image, source)
    result = stillscan.denoise(source, modality="MR", output=tmp_path / f"out{suffix}", **EXACT)
    written = nibabel.load(tmp_path / f"out{suffix}")
    assert written.get_data_dtype() == np.float32
    assert np.array_equal(written.get_fdata(), result.image.get_fdata())
    assert sorted(each.name for each in tmp_path.iterdir()) == [f"in{suffix}", f"out{suffix}"]


def test_noise_is_estimated_without_a_network(monkeypatch, ct):
    monkeypatch.setattr(
        "stillscan.app.bundles.warm_networks.load_methods", lambda *_: pytest.fail("loads one")
    )
    found = stillscan.estimate_noise(noisy(3, 64, 64), modality="MR")
    assert found.sigma == pytest.approx(SIGMA, rel=0.2)
    assert found.map.shape == (3, 64, 64)
    of_dicom = stillscan.estimate_noise(ct)
    assert of_dicom.unit == "HU"
    assert len(of_dicom.map) == 5


def test_threads_share_one_network_and_get_their_own_results(monkeypatch):
    loads = []

    def counting(*arguments):
        loads.append(arguments)
        return load_methods(*arguments)

    monkeypatch.setattr("stillscan.app.bundles.warm_networks.load_methods", counting)
    monkeypatch.setattr(functions, "_LOADED", functions.WarmNetworks())
    images = [noisy(2, 64, 64, seed=seed) for seed in range(4)]
    strengths = [1.0, 0.5, 0.75, 1.0]
    results: dict[int, np.ndarray] = {}

    def work(index):
        found = stillscan.denoise(images[index], modality="MR", strength=strengths[index], **EXACT)
        results[index] = found.image

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(loads) == 1
    for index, image in enumerate(images):
        alone = stillscan.denoise(image, modality="MR", strength=strengths[index], **EXACT)
        assert np.array_equal(results[index], alone.image)


def test_progress_is_told_block_by_block():
    seen = []
    stillscan.denoise(noisy(3, 64, 64), modality="MR", progress=seen.append, **EXACT)
    assert [(each.done, each.slices) for each in seen] == [(3, 3)]
    assert seen[0].denoised.pixels.shape == (3, 64, 64)


@pytest.mark.slow
def test_torch_is_whole_after_a_call():
    code = (
        "import numpy, stillscan; "
        "stillscan.denoise(numpy.random.default_rng(0).normal(9, 1, (64, 64)), modality='MR'); "
        "import torch; torch._meta_registrations.register_meta"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    [
        "ct/dicom/ct_siemens_chest_b40f",
        "dev/dicom/mr_siemens_prisma_t1_sag",
        "dev/dicom/mr_siemens_xa30_enhanced_bold4",
        "field/11-ge-diffusion-directions",
    ],
)
def test_what_dcm2niix_makes_of_a_scanners_series_gives_its_pixels(
    name, stillscan_data, tool, tmp_path
):
    def converted(source: Path, out: Path) -> nibabel.Nifti1Image:
        out.mkdir()
        command = [tool("dcm2niix"), "-z", "n", "-f", "series", "-o", out, source]
        subprocess.run(command, capture_output=True, check=True)
        (file,) = out.glob("*.nii")
        return nibabel.load(file)

    options = EXACT | {"mode": "fast_student"}
    derived = stillscan.denoise(stillscan_data / name, **options).image
    (tmp_path / "derived").mkdir()
    for number, each in enumerate(derived):
        each.save_as(tmp_path / f"derived/{number}.dcm")
    image = converted(stillscan_data / name, tmp_path / "before")
    result = stillscan.denoise(image, modality=derived[0].Modality, **options).image
    expected = converted(tmp_path / "derived", tmp_path / "after")
    assert np.std(result.get_fdata() - image.get_fdata()) > 0
    assert np.abs(result.get_fdata() - expected.get_fdata()).max() <= 0.501


def test_radiographs_of_one_series_have_their_own_maps(tmp_path):
    make_series(tmp_path / "in", modality="DX", slices=1, rows=64)
    make_series(tmp_path / "more", modality="DX", slices=2, rows=80)
    (tmp_path / "more/DX_0_0002.dcm").rename(tmp_path / "in/DX_0_0002.dcm")
    result = stillscan.denoise(tmp_path / "in", **EXACT)
    assert [each.status for each in result.outcomes] == ["derived", "derived"]
    assert sorted(map.shape for map in result.noise) == [(64, 64), (80, 64)]
    assert [each.pixel_array.shape for each in result.image] == [map.shape for map in result.noise]
