"""The wheel: one name in the environment, and nothing of other people's names in its way."""

import json
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.series_factory import make_series

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OF_EXTRAS = ("holoscan", "monai", "openvino", "ray", "pynetdicom", "h11")
FOREIGN = ("app.py", "models/__init__.py", "operators/__init__.py", "deploy/__init__.py")

pytestmark = pytest.mark.slow


def run(*command: object, where: Path, packages: Path | str) -> str:
    """Output of a command in a folder, with these packages before all others."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=where,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", folder, ROOT], check=True)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel was installed into; its scripts are in `bin`."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", folder, wheel], check=True)
    return folder


@pytest.fixture(scope="module")
def light(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The wheel where nothing of the extras is installed: their imports fail."""
    folder = tmp_path_factory.mktemp("light")
    code = f"import sys; sys.modules.update(dict.fromkeys({OF_EXTRAS}))"
    (folder / "sitecustomize.py").write_text(code)
    return f"{folder}:{installed}"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder of somebody whose modules have the names of our layers."""
    folder = tmp_path / "foreign"
    for name in FOREIGN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('raise RuntimeError("foreign")')
    return folder


def test_the_wheel_holds_one_top_level_name(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"stillscan", f"stillscan-{PROJECT['version']}.dist-info"}
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name]


def test_every_file_of_the_layers_is_in_the_wheel(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "app", "models", "operators", "deploy"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert len(listed) > 200
    assert not {f"stillscan/{name}" for name in listed} - set(zipfile.ZipFile(wheel).namelist())


def test_it_is_imported_beside_other_peoples_modules(installed: Path, foreign: Path) -> None:
    code = (
        "import stillscan; print(stillscan.__file__, stillscan.__version__); "
        "print(*(getattr(stillscan, name).__module__ for name in stillscan.__all__))"
    )
    first, modules = run(sys.executable, "-c", code, where=foreign, packages=installed).splitlines()
    assert first == f"{installed / 'stillscan/__init__.py'} {PROJECT['version']}"
    assert {name.partition(".")[0] for name in modules.split()} == {"stillscan"}


def test_a_series_is_denoised_beside_other_peoples_modules(installed: Path, foreign: Path) -> None:
    make_series(foreign / "in", slices=2)
    run(installed / "bin/stillscan", "denoise", "in", "out", where=foreign, packages=installed)
    assert len(list((foreign / "out").glob("*/*.dcm"))) == 2


@pytest.mark.parametrize("script", sorted(PROJECT["scripts"]))
def test_every_console_script_runs(installed: Path, foreign: Path, script: str) -> None:
    said = run(installed / "bin" / script, "--help", where=foreign, packages=installed)
    assert script in said


def test_without_holoscan_and_the_sdk_the_main_job_is_done(
    light: str, installed: Path, tmp_path: Path
) -> None:
    make_series(tmp_path / "in", slices=3)
    program = installed / "bin/stillscan"
    said = run(program, "denoise", "in", "out", "--json", where=tmp_path, packages=light)
    (line,) = map(json.loads, said.splitlines())
    assert line["status"] == "derived"
    assert line["method"]["engine"] in ("torch", "ncnn")
    assert len(list((tmp_path / "out").glob("*/*.dcm"))) == 3
    assert "holoscan-cu13" in run(program, "doctor", where=tmp_path, packages=light)


def test_without_them_arrays_nifti_and_bids_are_denoised(
    light: str, installed: Path, tmp_path: Path
) -> None:
    code = """
import sys, nibabel, numpy, stillscan
image = numpy.random.default_rng(0).normal(100, 5, (48, 48, 3)).astype("float32")
found = stillscan.denoise(image.T, modality="MR")
assert found.image.std() < image.std() / 2
nibabel.save(nibabel.Nifti1Image(image, numpy.eye(4)), "sub-01_T1w.nii.gz")
stillscan.denoise("sub-01_T1w.nii.gz", modality="MR", output="out.nii.gz")
assert nibabel.load("out.nii.gz").get_fdata().std() < image.std() / 2
assert sys.modules["holoscan"] is None
"""
    run(sys.executable, "-c", code, where=tmp_path, packages=light)
    data = tmp_path / "bids/sub-01/anat"
    data.mkdir(parents=True)
    (tmp_path / "sub-01_T1w.nii.gz").rename(data / "sub-01_T1w.nii.gz")
    (tmp_path / "bids/dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    run(installed / "bin/stillscan", "denoise", "bids", "out", where=tmp_path, packages=light)
    assert (tmp_path / "out/sub-01/anat/sub-01_desc-denoised_T1w.nii.gz").is_file()


@pytest.mark.parametrize("name", ["denoise_folder.py", "denoise_arrays.py"])
def test_without_them_the_examples_run(light: str, tmp_path: Path, name: str) -> None:
    make_series(tmp_path / "in", slices=2)
    run(sys.executable, ROOT / "examples" / name, "in", "out", where=tmp_path, packages=light)
    assert list((tmp_path / "out").iterdir())


def test_where_locks_are_missing_results_are_written_all_the_same(
    light: str, tmp_path: Path
) -> None:
    """As on Windows, as far as that can be had here."""
    code = """
import sys
sys.modules["fcntl"] = sys.modules["resource"] = None
from pathlib import Path
from stillscan.app.pipeline.output_folder import publish, staging_in
with staging_in(Path("out")) as staging:
    (staging / "a").write_text("a")
    publish(staging, Path("out"))
assert [each.name for each in Path("out").iterdir()] == ["a"]
import numpy, stillscan
stillscan.denoise(numpy.random.default_rng(0).normal(9, 1, (64, 64)), modality="MR")
"""
    run(sys.executable, "-c", code, where=tmp_path, packages=light)
