import os
from pathlib import Path

import pytest

from app.output_folder import publish, require_apart, staging_in
from operators.errors import ExitCode, OutputError, SettingsError


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def stage(staging: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_what_is_staged_appears_when_it_is_published(tmp_path: Path) -> None:
    with staging_in(tmp_path) as staging:
        stage(staging, {"2.25.1/a.dcm": "a", "report/result.json": "{}"})
        publish(staging, tmp_path)
    assert tree(tmp_path) == {"2.25.1/a.dcm": "a", "report/result.json": "{}"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.25.1", "report"]


def test_nothing_appears_without_publishing(tmp_path: Path) -> None:
    with staging_in(tmp_path) as staging:
        stage(staging, {"2.25.1/a.dcm": "a"})
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_an_exception_passes(tmp_path: Path) -> None:
    def interrupted() -> None:
        with staging_in(tmp_path) as staging:
            stage(staging, {"2.25.1/a.dcm": "a"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_published_files_are_readable_as_any_file_made_there(tmp_path: Path) -> None:
    with staging_in(tmp_path) as staging:
        stage(staging, {"2.25.1/a.dcm": "a"})
        publish(staging, tmp_path)
    (tmp_path / "made").mkdir()
    assert (tmp_path / "2.25.1").stat().st_mode == (tmp_path / "made").stat().st_mode


def test_other_things_in_the_output_are_not_touched(tmp_path: Path) -> None:
    stage(tmp_path, {"notes.txt": "mine", "2.25.9/x.dcm": "x", "report/mine.html": "mine"})
    with staging_in(tmp_path) as staging:
        stage(staging, {"2.25.1/a.dcm": "a", "report/result.json": "{}"})
        publish(staging, tmp_path)
    assert tree(tmp_path) == {
        "2.25.1/a.dcm": "a",
        "2.25.9/x.dcm": "x",
        "notes.txt": "mine",
        "report/mine.html": "mine",
        "report/result.json": "{}",
    }


def test_same_series_is_replaced(tmp_path: Path) -> None:
    stage(tmp_path, {"2.25.1/a.dcm": "old", "report/result.json": "old"})
    with staging_in(tmp_path) as staging:
        stage(staging, {"2.25.1/a.dcm": "new", "report/result.json": "new"})
        publish(staging, tmp_path)
    assert tree(tmp_path) == {"2.25.1/a.dcm": "new", "report/result.json": "new"}


def test_publishing_that_fails_takes_everything_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(tmp_path, {"2.25.1/a.dcm": "old"})
    rename = Path.rename

    def rename_but_not_the_second(self: Path, target: Path) -> Path:
        if self.name == "2.25.2":
            raise OSError(28, os.strerror(28))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_but_not_the_second)
    with staging_in(tmp_path) as staging:
        stage(staging, {"2.25.1/a.dcm": "new", "2.25.2/b.dcm": "new"})
        with pytest.raises(OutputError, match="No space left") as caught:
            publish(staging, tmp_path)
    assert caught.value.reason == "disk-full"
    assert caught.value.exit_code == ExitCode.OUTPUT_FAULT
    assert tree(tmp_path) == {"2.25.1/a.dcm": "old"}


def test_output_is_made_with_its_parents(tmp_path: Path) -> None:
    with staging_in(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()


def test_output_that_is_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="out: File exists"), staging_in(tmp_path / "out"):
        pass


def test_input_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="in does not exist"):
        require_apart(tmp_path / "in", tmp_path / "out")


def test_output_may_not_be_the_input(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(SettingsError, match="the same"):
        require_apart(tmp_path, tmp_path / "link")


def test_output_may_not_lie_in_the_input(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="inside input"):
        require_apart(tmp_path, tmp_path / "a" / "out")


def test_input_may_lie_in_the_output(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    require_apart(tmp_path / "in", tmp_path)
