"""The examples run and give what they promise."""

import runpy
from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.series_factory import make_series

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
GALLERY = EXAMPLES.parent / ".ci" / "gallery.py"  # runs the notebooks: tests/docs/test_site.py


@pytest.fixture
def source(tmp_path: Path) -> Path:
    make_series(tmp_path / "in", slices=3)
    (tmp_path / "in/notes.txt").write_text("no DICOM")
    return tmp_path / "in"


def run_example(name: str, *arguments: Path) -> object:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](*arguments)


def test_every_example_is_tried_here():
    names = {path.name for path in EXAMPLES.iterdir() if path.name != "__pycache__"}
    beside = {"denoise_then_segment"}  # tests/app/test_sdk_operators.py
    notebooks = {f"{name}.ipynb" for name in runpy.run_path(str(GALLERY))["NOTEBOOKS"]}
    assert names - beside == {"denoise_folder.py", "denoise_arrays.py"} | notebooks


def test_a_folder_is_denoised_and_its_report_read(source, tmp_path, capsys):
    assert run_example("denoise_folder", source, tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert said.startswith("MR, 3 slices: derived, noise ")
    folder = Path(said.split(", in ")[1].strip())
    assert len(list(folder.glob("*.dcm"))) == 3


def test_a_refused_series_is_listed_with_its_reason(source, tmp_path, capsys):
    for file in source.glob("*.dcm"):
        header = pydicom.dcmread(file)
        header.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        header.save_as(file)
    make_series(source / "more", seed=2)
    assert run_example("denoise_folder", source, tmp_path / "out") == 0
    assert "MR, 3 slices: not-selected, localizer" in capsys.readouterr().out


def test_arrays_of_a_series_are_kept(source, tmp_path, capsys):
    run_example("denoise_arrays", source, tmp_path / "arrays")
    assert "MR, 3 slices" in capsys.readouterr().out
    (file,) = (tmp_path / "arrays").glob("*.npz")
    with np.load(file) as arrays:
        after, noise, error = arrays["after"], arrays["noise"], arrays["error"]
    assert after.shape == noise.shape == error.shape == (3, 64, 64)
    assert (noise > 0).all()
    assert (error >= 0).all()
    assert error.mean() < noise.mean()
