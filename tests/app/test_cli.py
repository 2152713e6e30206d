"""What `stillscan` says, writes and returns."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from typer.testing import CliRunner, Result

from stillscan.app.cli import app
from stillscan.operators.errors import OutputError
from tests.series_factory import make_series


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    make_series(tmp_path / "in")
    return tmp_path / "in"


def damage(source: Path) -> None:
    """Make one more series, which cannot be read."""
    broken = make_series(source, seed=9, slices=1)[0]
    broken.write_bytes(broken.read_bytes()[:-500])


def test_a_series_becomes_a_derived_series_and_a_report(source: Path, tmp_path: Path) -> None:
    result = invoke("denoise", source, tmp_path / "out", "--mode", "identity")
    assert result.exit_code == 0, result.output
    uid, report = names(tmp_path / "out")
    assert report == "report"
    assert len(list((tmp_path / "out" / uid).glob("*.dcm"))) == 4
    assert names(tmp_path / "out" / "report") == [f"{uid}.html", "index.html", "result.json"]
    written = json.loads((tmp_path / "out" / "report" / "result.json").read_text())
    assert written["exit_code"] == 0
    assert written["series"][0]["derived"]["series_instance_uid"] == uid


def test_without_a_report_there_are_derived_series_alone(source: Path, tmp_path: Path) -> None:
    invoke("denoise", source, tmp_path / "out", "--mode", "identity", "--no-report")
    (uid,) = names(tmp_path / "out")
    assert uid.startswith("2.25.")
    assert all(name.endswith(".dcm") for name in names(tmp_path / "out" / uid))


def test_one_file_may_be_the_input(source: Path, tmp_path: Path) -> None:
    (file, *_) = sorted(source.iterdir())
    result = invoke("denoise", file, tmp_path / "out", "--mode", "identity")
    assert result.exit_code == 0, result.output


def test_folders_are_named_by_a_pattern_and_no_other_series_is_replaced(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for number, seed in enumerate((0, 1, 2)):
        about = {"SeriesDescription": "T1 tra/2", "SeriesNumber": 3 + number // 2}
        make_series(source / str(seed), seed=seed, slices=2, **about)
    assert invoke("denoise", source / "0", out, "--name", "%s_%d").exit_code == 0
    (first,) = set(names(out)) - {"report"}
    assert re.fullmatch("[0-9]+_T1_tra_2", first)
    before = names(out / first)
    result = invoke("denoise", source, out, "--name", "%s_%d", "-v")
    assert result.exit_code == 0
    assert "tra" not in result.output
    folders = sorted(set(names(out)) - {"report"})
    assert len(folders) == 3
    assert names(out / first) == before
    uids = {dcmread(next((out / each).iterdir())).SeriesInstanceUID for each in folders}
    assert len(uids) == 3
    report = json.loads((out / "report" / "result.json").read_text(encoding="utf-8"))
    assert sorted(each["derived"]["folder"] for each in report["series"]) == folders
    make_series(tmp_path / "report", slices=2, SeriesDescription="report")
    assert invoke("denoise", tmp_path / "report", out, "--name", "%d").exit_code == 0
    assert any(each.startswith("report_") for each in names(out))
    assert invoke("denoise", source, out, "--name", "plain").exit_code == 2
    assert invoke("denoise", source, out, "--name", "%x").exit_code == 2


def test_a_repeat_gives_the_same_uids_and_replaces_nothing_else(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    invoke("denoise", source, out, "--mode", "identity", "--no-report")
    first = {path: path.read_bytes() for path in out.rglob("*.dcm")}
    (out / "notes.txt").write_text("mine")
    invoke("denoise", source, out, "--mode", "identity", "--no-report")
    assert {path: path.read_bytes() for path in out.rglob("*.dcm")} == first
    assert (out / "notes.txt").read_text() == "mine"


def test_plain_lines_where_the_output_is_no_terminal(source: Path, tmp_path: Path) -> None:
    result = invoke("denoise", source, tmp_path / "out", "--mode", "identity")
    assert "\x1b" not in result.output
    assert re.search(r"^derived [\d.]+ -> 2\.25\.\d+: MR, 4 slices, noise", result.stdout)
    assert f"1 derived series in {tmp_path / 'out'}" in result.stdout


def test_all_derived_is_0(source: Path, tmp_path: Path) -> None:
    assert invoke("denoise", source, tmp_path / "out", "--mode", "identity").exit_code == 0


def test_a_bug_is_1_and_leaves_the_output_empty(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "^".join(["CANARY", "NAME"])

    def bug(*arguments: object) -> None:
        raise KeyError(name)

    monkeypatch.setattr("stillscan.operators.graph.stages.estimate_block", bug)
    result = invoke("denoise", source, tmp_path / "out", "--mode", "identity", "-v")
    assert result.exit_code == 1
    assert "internal-fault: KeyError at tests/app/test_cli.py:" in result.stderr
    assert "CANARY" not in result.output
    assert names(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{tmp}/none", "{tmp}/out"], "input .*none does not exist"),
        (["{tmp}/in", "{tmp}/in"], "input and output are the same"),
        (["{tmp}/in", "{tmp}/in/out"], "inside input"),
        (["{tmp}/in", "{tmp}/out", "--config", "{tmp}/none.yaml"], "cannot be read"),
        (["{tmp}/in", "{tmp}/out", "--config", "{tmp}/bad.yaml"], r"'denoise\.sigma'"),
        (["{tmp}/in", "{tmp}/out", "--strength", "extreme"], "extreme"),
        (["{tmp}/in"], "OUT"),
    ],
)
def test_wrong_arguments_are_2(
    source: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "bad.yaml").write_text(
        "application: {title: T, version: '1'}\ndenoise: {sigma: 1}\n"
    )
    result = invoke("denoise", *(each.format(tmp=tmp_path) for each in arguments))
    assert result.exit_code == 2
    assert re.search(said, result.stderr)
    assert "Traceback" not in result.output
    assert not list(tmp_path.rglob(".stillscan-*"))


def test_nothing_to_do_is_3(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    result = invoke("denoise", tmp_path / "in", tmp_path / "out", "--mode", "identity")
    assert result.exit_code == 3
    assert "nothing to do" in result.stderr
    assert names(tmp_path / "out") == []


def test_a_localizer_alone_is_3(tmp_path: Path) -> None:
    make_series(tmp_path / "in", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    result = invoke("denoise", tmp_path / "in", tmp_path / "out", "--mode", "identity")
    assert result.exit_code == 3
    assert "localizer" in result.stderr


def test_every_series_refused_is_4(tmp_path: Path) -> None:
    damage(tmp_path / "in")
    result = invoke("denoise", tmp_path / "in", tmp_path / "out", "--mode", "identity")
    assert result.exit_code == 4
    assert "truncated-file" in result.stderr
    assert names(tmp_path / "out") == []


def test_a_refused_series_among_good_ones_is_5_and_listed(source: Path, tmp_path: Path) -> None:
    make_series(source, seed=5, modality="CT")
    damage(source)
    result = invoke("denoise", source, tmp_path / "out", "--mode", "identity")
    assert result.exit_code == 5
    assert len(names(tmp_path / "out")) == 3
    written = json.loads((tmp_path / "out" / "report" / "result.json").read_text())
    reasons = [each["reason"] for each in written["series"] if each["status"] == "refused"]
    assert reasons == ["truncated-file"]


def test_a_folder_without_bundles_is_6(source: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    result = invoke("denoise", source, tmp_path / "out", "--models", tmp_path / "models")
    assert result.exit_code == 6
    assert "hold no bundle" in result.stderr
    assert names(tmp_path / "out") == []


def test_a_broken_bundle_is_6(source: Path, tmp_path: Path) -> None:
    metadata = tmp_path / "models" / "mr" / "configs" / "metadata.json"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("{")
    result = invoke("denoise", source, tmp_path / "out", "--models", tmp_path / "models")
    assert result.exit_code == 6
    assert "bundle mr" in result.stderr


def test_an_output_that_cannot_be_written_is_7(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    result = invoke("denoise", source, tmp_path / "out", "--mode", "identity")
    assert result.exit_code == 7
    assert "output" in result.stderr


def test_a_disk_that_fills_up_is_7_and_leaves_the_output_empty(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stillscan.operators.graph.stages.write_series_page", full)
    result = invoke("denoise", source, tmp_path / "out", "--mode", "identity")
    assert result.exit_code == 7
    assert "disk-full" in result.stderr
    assert names(tmp_path / "out") == []


def test_publishing_that_fails_is_7(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OutputError("made for the test")

    monkeypatch.setattr("stillscan.app.pipeline.pipeline.publish", refuse)
    result = invoke("denoise", source, tmp_path / "out", "--mode", "identity")
    assert result.exit_code == 7
    assert names(tmp_path / "out") == []


def test_inspect_says_what_would_be_done_and_why(source: Path) -> None:
    make_series(source, seed=3, slices=1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (source / "notes.txt").write_text("not an image")
    before = names(source)
    result = invoke("inspect", source, "--mode", "identity")
    assert result.exit_code == 0
    assert re.search(r"would denoise [\d.]+ in identity mode: MR, 4 slices", result.stdout)
    assert re.search(r"would not denoise: not selected [\d.]+: localizer", result.stdout)
    assert "skipped notes.txt: not-dicom" in result.stdout
    assert names(source) == before


def test_inspect_of_nothing_is_3(tmp_path: Path) -> None:
    assert invoke("inspect", tmp_path, "--mode", "identity").exit_code == 3


def test_version_is_shown() -> None:
    assert re.fullmatch(r"Stillscan \d+\.\d+\.\d+\n", invoke("--version").stdout)


def test_help_tells_the_exit_codes() -> None:
    text = re.sub(r"\s+", " ", invoke("--help").stdout)
    for code in range(8):
        assert re.search(rf"\b{code} \w", text)


@pytest.mark.slow
def test_a_process_of_its_own_returns_the_exit_code(
    stillscan: Callable, source: Path, tmp_path: Path
) -> None:
    done = stillscan("denoise", source, tmp_path / "out", "--mode", "identity")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 derived series" in done.stdout
    assert stillscan("denoise", source, source).returncode == 2


def test_a_real_series_keeps_every_pixel_in_identity_mode(
    stillscan_data: Path, tmp_path: Path
) -> None:
    source = stillscan_data / "dev" / "dicom" / "mr_siemens_prisma_t1_sag"
    result = invoke("denoise", source, tmp_path, "--mode", "identity", "--no-report")
    assert result.exit_code == 0, result.output
    (folder,) = tmp_path.iterdir()
    derived = {each.InstanceNumber: each for each in map(dcmread, folder.iterdir())}
    originals = [dcmread(path) for path in source.iterdir()]
    assert len(originals) == len(derived)
    for original in originals:
        assert derived[original.InstanceNumber].PixelData == original.PixelData
