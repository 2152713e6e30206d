"""`stillscan denoise` on NIfTI, BIDS, archives and media; JSON lines; `stillscan doctor`."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.fileset import FileSet
from typer.testing import CliRunner, Result

import stillscan
from stillscan.app.cli import app
from stillscan.app.pipeline import inputs
from tests.series_factory import make_series

CPU = ("--device", "cpu")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def lines(result: Result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def write_image(path: Path, shape: tuple[int, ...] = (48, 64, 3), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).normal(100, 5, shape)
    nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), np.diag([2, 2, 3, 1])), path)
    return path


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    root = tmp_path / "bids"
    for name in ("anat/sub-01_T1w", "anat/sub-01_T1map", "func/sub-01_task-rest_part-phase_bold"):
        write_image(root / f"sub-01/{name}.nii.gz")
    write_image(root / "sub-01/dwi/sub-01_dwi.nii.gz", (32, 32, 2, 3), seed=1)
    write_image(root / "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii", seed=2)
    write_image(root / "derivatives/other/sub-01/anat/sub-01_desc-x_T1w.nii.gz")
    for name, document in {
        "dataset_description.json": {"Name": "Test", "BIDSVersion": "1.9.0", "License": "CC0"},
        "T1w.json": {"MagneticFieldStrength": 3, "EchoTime": 1},
        "sub-01/anat/sub-01_T1w.json": {"EchoTime": 2},
    }.items():
        (root / name).write_text(json.dumps(document))
    (root / "dwi.bval").write_text("0 1000 1000")
    (root / "sub-01/dwi/sub-01_dwi.bvec").write_text("0 1 0")
    return root


def test_a_nifti_file_is_denoised_into_the_file_that_is_named(tmp_path):
    source, out = write_image(tmp_path / "t1.nii.gz"), tmp_path / "out/quiet.nii.gz"
    result = invoke("denoise", source, out, "--modality", "MR", *CPU)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("denoised file-")
    assert "MR, 3 slices, noise" in result.stdout
    assert result.stdout.endswith(f"1 denoised image in {out}\n")
    assert sorted(each.name for each in out.parent.iterdir()) == ["quiet.json", "quiet.nii.gz"]
    expected = stillscan.denoise(source, modality="MR", device="cpu")
    assert np.array_equal(nibabel.load(out).get_fdata(), expected.image.get_fdata())
    sidecar = json.loads((tmp_path / "out/quiet.json").read_text())
    assert sidecar["Sources"] == ["t1.nii.gz"]
    facts = sidecar["Stillscan"]
    assert facts["version"] == stillscan.__version__
    assert facts["noise"]["before"] == pytest.approx(expected.sigma)
    assert facts["method"]["strength"] == 1
    assert facts["verdict"]["decision"] == expected.verdict.decision


def test_a_folder_gets_maps_too_and_the_sidecar_says_the_modality(tmp_path):
    source = write_image(tmp_path / "in/t1.nii")
    (tmp_path / "in/t1.json").write_text('{"Modality": "MR"}')
    maps = ("--uncertainty", "--noise-map")
    result = invoke("denoise", "-i", source, "-o", tmp_path / "out", *maps, *CPU)
    assert result.exit_code == 0, result.output
    written = sorted(each.name for each in (tmp_path / "out").iterdir())
    results = ("t1_denoised", "t1_noise", "t1_uncertainty")
    assert written == [name + ending for name in results for ending in (".json", ".nii")]
    noise = nibabel.load(tmp_path / "out/t1_noise.nii").get_fdata()
    assert noise.mean() == pytest.approx(5, rel=0.2)


def test_paths_may_be_relative_to_the_folder_of_the_image(bids, monkeypatch):
    """In a process of its own with a time limit: a search for sidecars once did not end here."""
    write_image(bids.parent / "t1.nii.gz")
    program = "from stillscan.app.start import main; main()"
    command = [sys.executable, "-c", program, "denoise"]
    for folder, source, out in ((bids.parent, "t1.nii.gz", "quiet.nii.gz"), (bids, ".", "../out")):
        monkeypatch.chdir(folder)
        subprocess.run([*command, source, out, "--modality", "MR", *CPU], check=True, timeout=60)
    assert (bids.parent / "quiet.nii.gz").is_file()
    name = "sub-01/anat/sub-01_desc-denoised_T1w.json"
    assert json.loads((bids.parent / "out" / name).read_text())["EchoTime"] == 2


@pytest.mark.parametrize(
    ("content", "options", "code", "reason"),
    [
        (None, ("--modality", "MR"), 2, "bad-settings"),
        (b"no image", ("--modality", "MR"), 4, "damaged-file"),
        ("image", (), 2, "modality-unknown"),
        ("image", ("--modality", "US"), 4, "no-bundle-for-modality"),
    ],
)
def test_a_nifti_file_that_cannot_be_denoised_is_refused(
    tmp_path, content, options, code, reason, caplog
):
    source = tmp_path / "t1.nii.gz"
    if content == "image":
        write_image(source)
    elif content is not None:
        source.write_bytes(content)
    result = invoke("denoise", source, tmp_path / "out", *options, *CPU)
    assert result.exit_code == code
    assert reason in result.stderr + caplog.text
    assert not (tmp_path / "out").exists()


def test_a_bids_data_set_becomes_a_derivative_data_set(bids):
    out = bids / "derivatives/stillscan"
    result = invoke("denoise", bids, out, "--strength", "0.5", *CPU)
    assert result.exit_code == 0, result.output
    written = sorted(each.relative_to(out).as_posix() for each in out.rglob("*") if each.is_file())
    assert written == [
        "dataset_description.json",
        "sub-01/anat/sub-01_desc-denoised_T1w.json",
        "sub-01/anat/sub-01_desc-denoised_T1w.nii.gz",
        "sub-01/dwi/sub-01_desc-denoised_dwi.json",
        "sub-01/dwi/sub-01_desc-denoised_dwi.nii.gz",
        "sub-01/dwi/sub-01_dwi.bval",
        "sub-01/dwi/sub-01_dwi.bvec",
        "sub-02/ses-1/anat/sub-02_ses-1_desc-denoised_T1w.json",
        "sub-02/ses-1/anat/sub-02_ses-1_desc-denoised_T1w.nii",
    ]
    description = json.loads((out / written[0]).read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"] == [{"Name": "Stillscan", "Version": stillscan.__version__}]
    assert (out / description["DatasetLinks"]["raw"]).resolve() == bids
    sidecar = json.loads((out / written[1]).read_text())
    assert (sidecar["MagneticFieldStrength"], sidecar["EchoTime"]) == (3, 2)
    assert sidecar["Sources"] == ["bids:raw:sub-01/anat/sub-01_T1w.nii.gz"]
    assert sidecar["Stillscan"]["method"]["strength"] == 0.5
    assert sidecar["SkullStripped"] is False
    assert set(sidecar["Stillscan"]) >= {"noise", "version", "verdict", "method"}
    assert nibabel.load(out / written[4]).shape == (32, 32, 2, 3)
    assert result.stderr.count("not-denoised") == 2


@pytest.mark.parametrize("content", [b"no image", None], ids=["damaged", "a link to nothing"])
def test_one_bad_image_of_a_data_set_is_refused_and_the_others_go_on(bids, content):
    image = bids / "sub-01/anat/sub-01_T1w.nii.gz"
    image.unlink()
    if content is None:
        image.symlink_to("not-fetched")
    else:
        image.write_bytes(content)
    result = invoke("denoise", bids, bids.parent / "out", "--json", *CPU)
    assert result.exit_code == 5
    assert [(each["status"], each["reason"]) for each in lines(result)] == [
        ("refused", "damaged-file"),
        ("derived", None),
        ("derived", None),
    ]
    assert not (bids.parent / "out/sub-01/anat").exists()


def test_inspect_says_what_would_be_done_with_a_data_set(bids):
    result = invoke("inspect", bids, "--json")
    assert result.exit_code == 0, result.output
    found = [(each["status"], each["modality"], each["slices"]) for each in lines(result)]
    assert sorted(found) == [
        ("not-selected", "", 0),
        ("not-selected", "", 0),
        ("would-denoise", "MR", 3),
        ("would-denoise", "MR", 3),
        ("would-denoise", "MR", 6),
    ]
    assert invoke("inspect", bids).stdout.count("would denoise") == 3


@pytest.fixture
def series(tmp_path: Path) -> Path:
    make_series(tmp_path / "in", SeriesDescription="T1 of somebody", SeriesNumber=7)
    return tmp_path / "in"


def derived(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.glob("*/*.dcm")}


def test_an_archive_is_denoised_as_its_folder_is(series, tmp_path):
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for number, file in enumerate(series.iterdir()):
            archive.write(file, f"../../{number}/Name^Of^Somebody.dcm")
    result = invoke("denoise", tmp_path / "study.zip", tmp_path / "zip", "--no-report", *CPU)
    assert result.exit_code == 0, result.output
    invoke("denoise", series, tmp_path / "folder", "--no-report", *CPU)
    assert derived(tmp_path / "zip") == derived(tmp_path / "folder")
    assert len(derived(tmp_path / "zip")) == 4
    in_memory = stillscan.denoise(tmp_path / "study.zip", device="cpu")
    assert {f"{each.SOPInstanceUID}.dcm" for each in in_memory.image} == set(
        derived(tmp_path / "zip")
    )


def test_an_archive_that_cannot_be_unpacked_is_refused(series, tmp_path, monkeypatch):
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 no archive")
    result = invoke("denoise", tmp_path / "bad.zip", tmp_path / "out")
    assert result.exit_code == 4
    assert "damaged-file" in result.stderr
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for file in series.iterdir():
            archive.write(file, file.name)
    monkeypatch.setattr(inputs, "MOST_FILES", 3)
    result = invoke("denoise", tmp_path / "many.zip", tmp_path / "out")
    assert result.exit_code == 4
    assert "archive-too-large" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_dicomdir_stands_for_the_files_of_its_medium(series, tmp_path):
    medium = FileSet()
    for file in series.iterdir():
        medium.add(file)
    medium.write(tmp_path / "medium")
    result = invoke("inspect", tmp_path / "medium/DICOMDIR", "--json")
    assert [each["status"] for each in lines(result)] == ["would-denoise"]
    result = invoke("denoise", tmp_path / "medium/DICOMDIR", tmp_path / "out", *CPU)
    assert result.exit_code == 0, result.output
    assert len(derived(tmp_path / "out")) == 4


def test_json_names_the_series_only_where_that_is_asked_for(series, tmp_path):
    result = invoke("denoise", series, tmp_path / "out", "--json", "--fast", *CPU)
    assert result.exit_code == 0, result.output
    (line,) = lines(result)
    assert line["schema"] == "stillscan-series/1"
    assert line["status"] == "derived"
    assert line["method"]["mode"] == "fast_student"
    assert "somebody" not in result.output
    written = json.loads((tmp_path / "out/report/result.json").read_text())["series"][0]
    assert line == {"schema": line["schema"]} | written
    (named,) = lines(invoke("denoise", series, tmp_path / "out", "--json", "--names", *CPU))
    assert (named["series_number"], named["series_description"]) == (7, "T1 of somebody")
    source = dcmread(next(series.iterdir()))
    assert named["study_instance_uid"] == source.StudyInstanceUID
    assert set(named) - set(line) == {"study_instance_uid", "series_number", "series_description"}


def test_a_strength_is_a_number_or_a_word(series, tmp_path):
    for given, name in (("0.5", "a"), ("low", "b")):
        invoke("denoise", series, tmp_path / name, "--strength", given, "--no-report", *CPU)
    assert derived(tmp_path / "a") == derived(tmp_path / "b")
    for given in ("1.01", "nan", "hihg"):
        result = invoke("denoise", series, tmp_path / "c", "--strength", given)
        assert result.exit_code == 2
        said = " ".join(result.output.replace("\u2502", " ").split())
        assert "expected low, medium, high or a number" in said


def test_input_and_output_are_each_given_once(series, tmp_path):
    for arguments in ((), (series,), (series, tmp_path / "out", "-i", series), ("-o", tmp_path)):
        result = invoke("denoise", *arguments)
        assert result.exit_code == 2, arguments
        assert "expected one path" in result.stderr


def test_objects_are_made_where_an_option_asks_for_them(series, tmp_path):
    options = ("--uncertainty", "--noise-map", "--measurements", "--no-report")
    result = invoke("denoise", series, tmp_path / "out", *options, *CPU)
    assert result.exit_code == 0, result.output
    modalities = {dcmread(each).SOPClassUID.name for each in (tmp_path / "out").glob("*/*.dcm")}
    assert len(modalities) == 3


def test_the_doctor_finds_everything_that_is_needed(tmp_path):
    result = invoke("doctor", tmp_path, *CPU)
    assert result.exit_code == 0, result.output
    for part in (f"stillscan  {stillscan.__version__}", "torch 2.", "bundle     mr", "JPEG 2000"):
        assert part in result.output
    assert f"{tmp_path} can be written" in result.output
    assert not list(tmp_path.iterdir())


def test_the_doctor_says_what_fails(tmp_path):
    (tmp_path / "file").write_text("")
    result = invoke("doctor", tmp_path / "file" / "folder", "--models", tmp_path)
    assert result.exit_code == 6
    assert "FAILED: model-fault" in result.output
    assert "FAILED: output-" in result.output


def test_the_shell_completes_commands_and_options():
    def completed(words: str, number: int) -> list[str]:
        environment = {"COMP_WORDS": words, "COMP_CWORD": str(number)}
        environment |= {"_STILLSCAN_COMPLETE": "complete_bash"}
        done = CliRunner().invoke(app, [], env=environment, prog_name="stillscan")
        return done.stdout.split()

    assert completed("stillscan den", 1) == ["denoise"]
    assert "--strength" in completed("stillscan denoise --s", 2)
