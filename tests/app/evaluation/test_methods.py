"""Rows of the bundles' students: which there are, and for whom."""

import shutil

import pytest

from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.app.evaluation.methods import students
from stillscan.models.bundle import FAST_STUDENT, FAST_STUDENT_INT8


def names_and_rows(folder, device="cpu"):
    return {method.name: method for method in students(folder, device)}


def test_every_student_that_ships_has_a_row_of_its_own():
    rows = names_and_rows(DEFAULT_BUNDLES)
    kinds = ["student", "fast student", "fast student int8"]
    assert list(rows) == [name for kind in kinds for name in (kind, f"{kind} (oracle noise)")]
    assert rows["fast student int8"].fingerprint != rows["fast student"].fingerprint


@pytest.mark.parametrize(("in_hardware", "precision"), [(True, "bfloat16"), (False, "float32")])
@pytest.mark.parametrize("domain", ["mr", "xray", "ct"])
def test_a_row_in_int8_computes_in_int8_or_not_at_all(monkeypatch, domain, in_hardware, precision):
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: in_hardware)
    rows = names_and_rows(DEFAULT_BUNDLES)
    denoisers = {name: rows[name].denoiser(None, domain) for name in rows if "oracle" not in name}
    assert denoisers["fast student"].engine.precision == precision
    in_int8 = denoisers["fast student int8"]
    if domain == "ct":
        assert in_int8 is None
    else:
        assert in_int8.engine.precision == "int8"


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (FAST_STUDENT_INT8, ["student", "fast student"]),
        (FAST_STUDENT, ["student", "fast student int8"]),
    ],
)
def test_a_bundle_without_a_student_has_no_row_of_it(tmp_path, missing, expected):
    shutil.copytree(DEFAULT_BUNDLES / "mr", tmp_path / "mr")
    (tmp_path / "mr" / missing).unlink()
    rows = [name for name in names_and_rows(tmp_path) if "oracle" not in name]
    assert rows == expected
