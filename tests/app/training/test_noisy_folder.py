"""A folder of noisy series: every format, the noise as the application measures it, errors."""

import gzip
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image as Picture

from stillscan.app.datasets.errors import (
    EverySeriesRefusedError,
    NoTrainingImagesError,
    TooFewImagesError,
)
from stillscan.app.datasets.noisy_folder import read_noisy_folder, split
from stillscan.operators.denoising.intensity import HOUNSFIELD_RANGE
from stillscan.operators.denoising.plan import plan_from, read_sample
from stillscan.operators.errors import SettingsError
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import find_series, read_series
from stillscan.operators.reading.selection import SelectionRules
from tests.series_factory import make_series

nibabel = pytest.importorskip("nibabel")


def phantom(slices: int = 4, side: int = 160, sigma: float = 20.0, seed: int = 0) -> np.ndarray:
    """A disc on a flat background with white noise: [slice, row, column], about 0 .. 1000."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    clean = 300 + 600 * (np.hypot(x, y) < 0.3)
    return (clean + sigma * rng.standard_normal((slices, side, side))).astype(np.float32)


def write_png(path: Path, pixels: np.ndarray, bits: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if bits == 8:
        pixels = pixels / 4
    kind = np.uint8 if bits == 8 else np.uint16
    Picture.fromarray(np.clip(pixels, 0, None).round().astype(kind)).save(path)


@pytest.fixture
def read(tmp_path):
    """`read(folder)` reads it with the shipped rules."""
    with Decoder() as decoder:
        yield lambda folder=tmp_path, **options: read_noisy_folder(
            folder, decoder, SelectionRules(), **options
        )


def reasons(folder):
    return sorted(each.reason for each in folder.refused)


def test_every_format_shows_the_same_noise(read, tmp_path):
    stack = phantom()
    np.savez(tmp_path / "a.npz", data=stack.astype(np.float32), same=stack.round().astype(np.int16))
    nibabel.save(nibabel.Nifti1Image(stack.transpose(1, 2, 0), np.eye(4)), tmp_path / "b.nii")
    nibabel.save(nibabel.Nifti1Image(stack.transpose(1, 2, 0), np.eye(4)), tmp_path / "c.nii.gz")
    for number, image in enumerate(stack):
        write_png(tmp_path / "wide" / f"{number}.png", image)
        write_png(tmp_path / "narrow" / f"{number}.png", image, bits=8)
    found = read()
    assert sorted(each.source.name for each in found.series) == [
        "a.npz[data]",
        "a.npz[same]",
        "b.nii",
        "c.nii.gz",
        "narrow/*.png",
        "wide/*.png",
    ]
    assert not found.refused
    for series in found.series:
        high = np.quantile(stack, 0.999)
        assert len(series.images) == 4
        assert series.profile.sigma == pytest.approx(20 / high, rel=0.1)
        assert series.profile.radius == 0


def test_dicom_has_the_scaling_and_the_noise_that_the_application_finds(read, tmp_path):
    make_series(tmp_path, modality="CT", slices=6, rows=128, columns=128)
    (series,) = read().series
    with Decoder() as decoder:
        (candidate,) = find_series(tmp_path, decoder, SelectionRules()).candidates
        volume = read_series(candidate, decoder)
        plan = plan_from(read_sample(volume))
        block = volume.read(0, 1)
    assert series.source.modality == "CT"
    assert series.profile.sigma == plan.noise.sigma
    np.testing.assert_array_equal(
        series.images[0].pixels.numpy(), plan.scaling.to_network(block.pixels)[0]
    )


def test_a_modality_that_is_told_scales_what_cannot_say_it(read, tmp_path):
    np.savez(tmp_path / "a.npz", phantom())
    (series,) = read(modality="CT").series
    low, high = HOUNSFIELD_RANGE
    assert series.profile.sigma == pytest.approx(20 / (high - low), rel=0.1)


def test_sizes_may_differ(read, tmp_path):
    write_png(tmp_path / "a.png", phantom(1, 160)[0])
    write_png(tmp_path / "b.png", phantom(1, 200, seed=1)[0])
    (series,) = read().series
    assert [tuple(image.pixels.shape) for image in series.images] == [(160, 160), (200, 200)]


def test_one_file_may_be_all_there_is(read, tmp_path):
    np.savez(tmp_path / "a.npz", phantom())
    (series,) = read(tmp_path / "a.npz").series
    assert series.source.name == "a.npz[arr_0]"
    (tmp_path / "b.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    with pytest.raises(EverySeriesRefusedError, match=r"b\.dcm"):
        read(tmp_path / "b.dcm")


def test_more_axes_count_slices(read, tmp_path):
    stack = phantom(6).reshape(3, 2, 160, 160)
    np.savez(tmp_path / "a.npz", stack)
    volume = stack.transpose(2, 3, 1, 0)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "b.nii")
    assert [len(series.images) for series in read().series] == [6, 6]


@pytest.mark.parametrize("kind", ["npz", "nifti", "dicom"])
def test_repeats_tell_the_noise_of_every_format(read, tmp_path, kind):
    """Grain everywhere: without the second acquisition it would be taken for noise."""
    rng = np.random.default_rng(0)
    grain = 600 + 300 * np.kron(rng.standard_normal((4, 48, 48)), np.ones((2, 2)))
    twice = np.stack([grain + 10 * rng.standard_normal(grain.shape) for _ in range(2)])
    twice = np.clip(twice, 0, 4095).astype(np.float32)  # [time, slice, row, column]
    if kind == "npz":
        np.savez(tmp_path / "a.npz", data=twice)
    elif kind == "nifti":
        nibabel.save(
            nibabel.Nifti1Image(twice.transpose(2, 3, 1, 0), np.eye(4)), tmp_path / "a.nii"
        )
    else:
        place = {"ImagePositionPatient": lambda index: ["0", "0", str(index % 4 * 3)]}
        files = make_series(tmp_path, slices=8, rows=96, columns=96, **place)
        for file, image in zip(files, twice.reshape(8, 96, 96), strict=True):
            dataset = pydicom.dcmread(file)
            dataset.PixelData = image.round().astype(np.uint16).tobytes()
            dataset.save_as(file)
    (series,) = read().series
    brightest = np.quantile(twice, 0.999)
    assert series.profile.sigma * brightest == pytest.approx(10, rel=0.15)


def test_constant_slices_are_left_out_and_named(read, tmp_path):
    stack = phantom()
    stack[2] = 7
    np.savez(tmp_path / "a.npz", stack)
    (series,) = read().series
    assert series.constant == (2,)
    assert len(series.images) == 3


def test_values_that_are_no_numbers_refuse_the_series_and_not_the_others(read, tmp_path):
    broken = phantom()
    broken[1, 5, 5] = np.nan
    broken[1, 6, 6] = np.inf
    np.savez(tmp_path / "a.npz", sound=phantom(), broken=broken)
    found = read()
    assert [each.source.name for each in found.series] == ["a.npz[sound]"]
    (refusal,) = found.refused
    assert refusal.reason == "not-finite-values"
    assert "a.npz[broken]: slice 1 has 2 values" in refusal.message


def test_what_is_no_image_is_refused_with_its_reason(read, tmp_path):
    np.savez(
        tmp_path / "a.npz",
        sound=phantom(),
        small=np.zeros((4, 31, 200)),
        kspace=np.zeros((64, 64), np.complex64),
        names=np.array(["a", "b"]),
        vector=np.zeros(7),
        constant=np.full((2, 64, 64), 3.0),
        clean=phantom(sigma=0.0),
    )
    (tmp_path / "b.npz").write_bytes(b"no archive")
    (tmp_path / "c.nii").write_bytes(b"no volume")
    (tmp_path / "d.nii.gz").write_bytes(gzip.compress(b"no volume either"))
    (tmp_path / "e.png").write_bytes(b"no picture")
    Picture.new("RGB", (64, 64)).save(tmp_path / "f.png")
    found = read()
    assert len(found.series) == 1
    assert reasons(found) == [
        "damaged-file",
        "damaged-file",
        "damaged-file",
        "damaged-file",
        "image-too-small",
        "no-noise",
        "no-noise",
        "unsupported-array",
        "unsupported-array",
        "unsupported-array",
        "unsupported-array",
    ]


def test_a_cut_file_is_refused(read, tmp_path):
    np.savez(tmp_path / "a.npz", phantom())
    nibabel.save(nibabel.Nifti1Image(phantom().transpose(1, 2, 0), np.eye(4)), tmp_path / "b.nii")
    nibabel.save(
        nibabel.Nifti1Image(phantom().transpose(1, 2, 0), np.eye(4)), tmp_path / "c.nii.gz"
    )
    write_png(tmp_path / "d.png", phantom(1)[0])
    for name in ("b.nii", "c.nii.gz", "d.png"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
    found = read()
    assert len(found.series) == 1
    assert reasons(found) == ["damaged-file"] * 3


def test_without_its_reader_nifti_is_refused_and_the_rest_goes_on(read, tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", phantom())
    nibabel.save(nibabel.Nifti1Image(phantom().transpose(1, 2, 0), np.eye(4)), tmp_path / "b.nii")
    monkeypatch.setitem(sys.modules, "nibabel", None)
    found = read()
    assert reasons(found) == ["reader-missing"]
    assert "nibabel" in found.refused[0].message


def test_objects_in_an_archive_are_never_unpickled(read, tmp_path):
    np.savez(tmp_path / "a.npz", data=phantom(), evil=np.array([print], dtype=object))
    found = read()
    assert [each.source.name for each in found.series] == ["a.npz[data]"]
    assert reasons(found) == ["unsupported-array"]


def test_nothing_to_train_on_is_said(read, tmp_path):
    with pytest.raises(SettingsError, match="does not exist"):
        read(tmp_path / "nowhere")
    with pytest.raises(NoTrainingImagesError, match="0 other files"):
        read()
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(NoTrainingImagesError, match="1 other files"):
        read()
    np.savez(tmp_path / "a.npz", np.zeros((4, 8, 8)))
    with pytest.raises(EverySeriesRefusedError, match="image-too-small"):
        read()


@pytest.mark.parametrize(
    "stack", [phantom(1, 400), phantom(4, 64)], ids=["one slice", "few pixels"]
)
def test_too_few_images_are_refused(read, tmp_path, stack):
    np.savez(tmp_path / "a.npz", stack)
    with pytest.raises(TooFewImagesError, match="expected at least"):
        read()


def test_what_does_not_fit_into_memory_is_thinned_out(read, tmp_path):
    np.savez(tmp_path / "a.npz", phantom(9))
    found = read(most_pixels=3 * 160 * 160)
    assert found.every == 3
    assert found.images == 3


def test_whole_subjects_are_held_out(read, tmp_path):
    for number in range(8):
        folder = tmp_path / f"sub-{number}" / "anat"
        folder.mkdir(parents=True)
        np.savez(folder / "a.npz", phantom(2, seed=number))
        np.savez(folder / "b.npz", phantom(2, seed=100 + number))
    found = read()
    assert found.subjects == 8
    training, held_out = split(found.series, seed=0)
    assert (len(training), len(held_out)) == (28, 4)
    held = {id(image) for image in held_out}
    subjects = {
        each.source.subject: {id(image) in held for image in each.images} for each in found.series
    }
    assert sum(each == {True} for each in subjects.values()) == 1
    assert sum(each == {False} for each in subjects.values()) == 7


def test_slices_are_held_out_where_there_is_one_subject(read, tmp_path):
    np.savez(tmp_path / "a.npz", phantom(9))
    training, held_out = split(read().series, seed=0)
    assert (len(training), len(held_out)) == (7, 2)


def test_something_is_held_out_of_single_slices(read, tmp_path):
    np.savez(tmp_path / "a.npz", one=phantom(1, 200), other=phantom(1, 200, seed=1))
    training, held_out = split(read().series, seed=0)
    assert (len(training), len(held_out)) == (1, 1)


def test_the_fingerprint_is_of_the_pixels(read, tmp_path):
    stack = phantom()
    np.savez(tmp_path / "a.npz", stack)
    before = read().fingerprint()
    assert read().fingerprint() == before
    stack[0, 0, 0] += 1
    np.savez(tmp_path / "a.npz", stack)
    assert read().fingerprint() != before


def test_names_below_the_folder_say_where_a_series_is(read, tmp_path):
    write_png(tmp_path / "deep" / "er" / "only.png", phantom(1, 300)[0])
    np.savez(tmp_path / "deep" / "a.npz", phantom())
    assert {each.source.name for each in read().series} == {"deep/er/only.png", "deep/a.npz[arr_0]"}
