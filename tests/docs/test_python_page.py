"""The Python examples of the pages run as they stand."""

import re
from pathlib import Path

import nibabel
import numpy as np
import pydicom

from tests.series_factory import make_series

PAGE = Path(__file__).resolve().parents[2] / "docs/python.md"


def test_the_examples_of_the_page_run_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_series(tmp_path / "study", slices=3)
    image = np.random.default_rng(0).normal(100, 5, (48, 48, 2)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), "t1.nii.gz")
    names = {
        "nibabel_image": nibabel.load("t1.nii.gz"),
        "datasets": [pydicom.dcmread(file) for file in sorted(Path("study").iterdir())],
    }
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 4
    for example in examples:
        exec(example, names)
    assert Path("t1_denoised.nii.gz").is_file()
    said = capsys.readouterr().out
    assert "(4, 128, 128) " in said
    assert "accept" in said
    assert "derived" in said
    assert "3 of 3" in said
