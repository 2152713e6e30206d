import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stillscan.app.pipeline.output_folder import LOCK, publish, require_apart, staging_in
from stillscan.operators.errors import ExitCode, OutputError, SettingsError

ROOT = Path(__file__).resolve().parents[2]


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


STAGE_AND_WAIT = """
import sys, time
from pathlib import Path
from stillscan.app.pipeline.output_folder import staging_in

out = Path(sys.argv[1])
with staging_in(out) as staging:
    (staging / "2.25.1").mkdir()
    (staging / "2.25.1" / "a.dcm").write_text("half")
    print(staging.name, flush=True)
    time.sleep(600)
"""


@contextmanager
def another_run(out: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that stages something and lives, until it is killed; its staging folder."""
    command = [sys.executable, "-c", STAGE_AND_WAIT, str(out)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, out / process.stdout.readline().strip()
        finally:
            process.kill()


def killed_run(out: Path) -> Path:
    """The staging folder of a process that was killed."""
    with another_run(out) as (process, left):
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert (left / "2.25.1" / "a.dcm").exists()
    return left


def test_what_a_killed_run_has_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left = killed_run(tmp_path)
    with staging_in(tmp_path) as staging:
        assert not left.exists()
        stage(staging, {"2.25.2/b.dcm": "b"})
        publish(staging, tmp_path)
    assert tree(tmp_path) == {"2.25.2/b.dcm": "b"}
    assert [path.name for path in tmp_path.iterdir()] == ["2.25.2"]


def test_what_a_living_run_stages_is_left_alone(tmp_path: Path) -> None:
    with another_run(tmp_path) as (_, theirs), staging_in(tmp_path) as ours:
        with staging_in(tmp_path):
            pass
        assert (theirs / "2.25.1" / "a.dcm").exists()
        assert ours.is_dir()


def test_what_a_killed_publication_moved_away_comes_back(tmp_path: Path) -> None:
    left = killed_run(tmp_path)
    stage(left, {"replaced/2.25.7/old.dcm": "old", "replaced/report/result.json": "old"})
    stage(left, {"replaced/2.25.8/old.dcm": "old"})
    stage(tmp_path, {"2.25.8/new.dcm": "new", "report/mine.html": "mine"})
    with staging_in(tmp_path):
        pass
    assert tree(tmp_path) == {
        "2.25.7/old.dcm": "old",
        "2.25.8/new.dcm": "new",
        "report/mine.html": "mine",
        "report/result.json": "old",
    }


@pytest.mark.parametrize(
    "mark", [b"", b"another-kernel 1\n"], ids=["locked in a moment", "of another machine"]
)
def test_a_lock_that_says_nothing_removes_nothing(tmp_path: Path, mark: bytes) -> None:
    left = killed_run(tmp_path)
    (left / LOCK).write_bytes(mark)
    with staging_in(tmp_path):
        assert left.exists()


def test_what_others_keep_in_the_output_stays(tmp_path: Path) -> None:
    stage(tmp_path, {".stillscan-backfill/lock": "", ".stillscan-backfill/backfill.sqlite": ""})
    with staging_in(tmp_path):
        pass
    assert len(tree(tmp_path)) == 2


def test_a_file_system_without_locks_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with staging_in(tmp_path) as theirs:
        with staging_in(tmp_path) as ours:
            stage(ours, {"2.25.1/a.dcm": "a"})
            publish(ours, tmp_path)
        assert theirs.exists()
    assert tree(tmp_path) == {"2.25.1/a.dcm": "a"}


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
