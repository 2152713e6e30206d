"""What a back-fill does with a source, seen from its destination and its table."""

import csv
import shutil
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
import pytest

from stillscan.app.backfill.command import work_on_ray
from stillscan.app.backfill.configuration import Configuration
from stillscan.app.backfill.destinations import Destination
from stillscan.app.backfill.errors import (
    OutputHoldsBackfillError,
    RayMissingError,
    RayUnreachableError,
)
from stillscan.app.backfill.work_items import SeriesFiles
from stillscan.app.backfill.worker import Order, Worker
from stillscan.app.settings import load_settings
from stillscan.operators.errors import DiskFullError, ExitCode, SettingsError
from tests.app.backfill.in_process import derived_in, fill
from tests.series_factory import make_series


def table(dest: Path) -> list[dict[str, str]]:
    with (dest / ".stillscan-backfill" / "series.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def states(dest: Path) -> Counter[tuple[str, str]]:
    return Counter((row["state"], row["reason"]) for row in table(dest))


def make_archive(folder: Path, series: int = 3) -> Path:
    for seed in range(series):
        make_series(folder / f"patient {seed}" / "a", seed=seed, slices=2)
    return folder


def test_every_series_has_a_folder_under_its_study(tmp_path: Path):
    source = make_archive(tmp_path / "in")
    code, _ = fill(source, tmp_path / "out")
    assert code == ExitCode.DERIVED
    studies = {
        pydicom.dcmread(file).StudyInstanceUID: pydicom.dcmread(file)
        for file in source.rglob("*")
        if file.is_file()
    }
    folders = derived_in(tmp_path / "out")
    assert {name.partition("/")[0] for name in folders} == set(studies)
    assert all(len(instances) == 2 for instances in folders.values())


def test_a_series_may_lie_in_several_folders(tmp_path: Path):
    files = make_series(tmp_path / "in" / "a", slices=4)
    (tmp_path / "in" / "b").mkdir()
    files[3].rename(tmp_path / "in" / "b" / files[0].name)  # of the same name as another
    fill(tmp_path / "in", tmp_path / "out")
    assert [len(each) for each in derived_in(tmp_path / "out").values()] == [4]


def test_what_is_not_derived_is_in_the_table_with_its_reason(tmp_path: Path):
    source = make_archive(tmp_path / "in", 1)
    make_series(source / "map", seed=5, slices=1, ImageType=["ORIGINAL", "PRIMARY", "ADC"])
    broken = make_series(source / "broken", seed=6, slices=2)
    broken[1].write_bytes(broken[1].read_bytes()[:-500])
    (source / "notes.txt").write_text("nothing")
    code, printed = fill(source, tmp_path / "out")
    assert code == ExitCode.PARTLY_DERIVED
    assert states(tmp_path / "out") == {
        ("derived", ""): 1,
        ("not-selected", "quantitative-map"): 1,
        ("refused", "truncated-file"): 1,
    }
    assert "1 files are not DICOM" in printed


def test_our_own_series_are_not_denoised_again(tmp_path: Path):
    source = make_archive(tmp_path / "in", 1)
    fill(source, tmp_path / "out")
    for name in derived_in(tmp_path / "out"):
        shutil.copytree(tmp_path / "out" / name, source / "returned")
    code, _ = fill(source, tmp_path / "again")
    assert code == ExitCode.DERIVED
    assert states(tmp_path / "again")["not-selected", "already-denoised"] == 1
    assert derived_in(tmp_path / "again") == derived_in(tmp_path / "out")


def test_a_second_run_does_only_what_is_missing(tmp_path: Path):
    source = make_archive(tmp_path / "in", 2)
    fill(source, tmp_path / "out")
    before = derived_in(tmp_path / "out")
    make_series(source / "new", seed=7, slices=2)
    gone = next(iter(before))
    shutil.rmtree(tmp_path / "out" / gone)
    code, printed = fill(source, tmp_path / "out", resume=True)
    assert code == ExitCode.DERIVED
    assert "2 of them in" in printed  # the new one, and the one that somebody removed
    after = derived_in(tmp_path / "out")
    assert before.items() <= after.items()
    assert len(after) == 3


def test_nothing_is_begun_where_nothing_is_missing(tmp_path: Path):
    source = make_archive(tmp_path / "in", 2)
    fill(source, tmp_path / "out")

    def unwanted(*_: object) -> None:
        raise AssertionError("no worker is needed")

    code, _ = fill(source, tmp_path / "out", resume=True, do=unwanted)
    assert code == ExitCode.DERIVED


def test_a_late_slice_makes_a_new_revision(tmp_path: Path):
    files = make_series(tmp_path / "in", slices=3)
    late = tmp_path / files[2].name
    files[2].rename(late)
    fill(tmp_path / "in", tmp_path / "out")
    late.rename(files[2])
    fill(tmp_path / "in", tmp_path / "out", resume=True)
    assert sorted(len(each) for each in derived_in(tmp_path / "out").values()) == [2, 3]


def test_another_mode_is_other_work(tmp_path: Path):
    source = make_archive(tmp_path / "in", 1)
    fill(source, tmp_path / "out")
    fill(source, tmp_path / "out", resume=True, mode="student")
    assert len(derived_in(tmp_path / "out")) == 2


def test_without_ray_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RayMissingError, match="pip install"):
        fill(make_archive(tmp_path / "in", 1), tmp_path / "out", do=work_on_ray)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "auto", "ray://x:1"])
def test_an_address_without_ray_is_refused_at_once(address: str, tmp_path: Path):
    source = make_archive(tmp_path / "in", 1)
    with pytest.raises(RayUnreachableError, match=address):
        fill(source, tmp_path / "out", do=work_on_ray, address=address)


def test_a_destination_is_not_gone_on_with_unasked(tmp_path: Path):
    source = make_archive(tmp_path / "in", 1)
    fill(source, tmp_path / "out")
    with pytest.raises(OutputHoldsBackfillError, match="--resume"):
        fill(source, tmp_path / "out")


def test_the_destination_may_not_lie_in_the_source(tmp_path: Path):
    with pytest.raises(SettingsError, match="inside"):
        fill(make_archive(tmp_path / "in", 1), tmp_path / "in" / "out")


def test_a_folder_without_images_is_nothing_to_do(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("nothing")
    code, _ = fill(tmp_path / "in", tmp_path / "out")
    assert code == ExitCode.NOTHING_TO_DO


def test_a_full_disk_ends_the_run_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = make_archive(tmp_path / "in", 2)
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise DiskFullError("could not publish: no space left on device")

        patch.setattr("stillscan.app.backfill.destinations._publish", full)
        code, _ = fill(source, tmp_path / "out")
    assert code == ExitCode.OUTPUT_FAULT
    assert not derived_in(tmp_path / "out")
    code, _ = fill(source, tmp_path / "out", resume=True)
    assert code == ExitCode.DERIVED
    assert len(derived_in(tmp_path / "out")) == 2


def test_a_study_uid_never_becomes_a_path(tmp_path: Path):
    make_series(tmp_path / "in", slices=1, StudyInstanceUID="..")
    fill(tmp_path / "in", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert all(name.startswith("study-") for name in derived_in(tmp_path / "out"))


def test_a_list_names_files_and_folders(tmp_path: Path):
    source = make_archive(tmp_path / "in", 3)
    (tmp_path / "list").write_text(f"# chosen\n{source / 'patient 0'}\n\n{source / 'patient 2'}\n")
    fill(tmp_path / "list", tmp_path / "out")
    assert len(derived_in(tmp_path / "out")) == 2


def test_a_list_with_uids_needs_an_archive(tmp_path: Path):
    (tmp_path / "list").write_text("1.2.3\n")
    with pytest.raises(SettingsError, match="--archive"):
        fill(tmp_path / "list", tmp_path / "out")


def test_no_name_gets_into_table_record_or_terminal(tmp_path: Path):
    make_series(tmp_path / "in", slices=2, PatientName="Canary^Yellow", PatientID="CANARY7")
    bad = make_series(tmp_path / "in", seed=2, slices=2, PatientName="Canary^Yellow")
    bad[0].write_bytes(bad[0].read_bytes()[:-10])
    _, printed = fill(tmp_path / "in", tmp_path / "out")
    state = tmp_path / "out" / ".stillscan-backfill"
    written = printed.encode() + b"".join(
        file.read_bytes() for file in state.rglob("*") if file.is_file()
    )
    assert b"canary" not in written.lower()


def test_a_digest_stands_for_the_weights(tmp_path: Path):
    from stillscan.app.bundles.choice import DEFAULT_BUNDLES
    from stillscan.app.settings import load_settings

    shutil.copytree(DEFAULT_BUNDLES / "mr", tmp_path / "mr")
    configuration = Configuration(load_settings(), tmp_path)
    before = configuration.digest()
    weights = tmp_path / "mr" / "models" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert configuration.digest() != before


def test_a_worker_leaves_no_working_folder(tmp_path: Path):
    fill(make_archive(tmp_path / "in", 1), tmp_path / "out")
    assert not list((tmp_path / "out" / ".stillscan-backfill" / "work").iterdir())


@dataclass(frozen=True)
class InArchive(SeriesFiles):
    """A series of which one instance is looked at before the others are retrieved."""

    def bring(self, folder: Path, endpoint: object) -> None:
        (self.files[0].parent / "retrieved").touch()
        super().bring(folder, None)

    def bring_one(self, folder: Path, endpoint: object) -> bool:
        shutil.copy(self.files[0], folder)
        return True


@pytest.mark.parametrize(
    ("first", "ending", "retrieved"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, ("derived", ""), True),
        ({"Modality": "OT"}, ("not-selected", "unsupported-modality"), False),
    ],
)
def test_one_odd_image_says_nothing_of_its_series(tmp_path: Path, first, ending, retrieved):
    files = make_series(tmp_path / "in", slices=4)
    odd = pydicom.dcmread(files[0])
    for keyword, value in first.items():
        setattr(odd, keyword, value)
    odd.save_as(files[0])
    settings = load_settings()
    settings = replace(settings, denoise=replace(settings.denoise, mode="identity", device="cpu"))
    worker = Worker(Order(Configuration(settings), Destination(tmp_path / "out")))
    worker.prepare(None)
    try:
        item = InArchive(str(odd.SeriesInstanceUID), "x", "", frozenset(), tuple(files))
        outcome = worker.process(item, "1")
    finally:
        worker.close()
    assert (outcome.state, outcome.reason) == ending
    assert (tmp_path / "in" / "retrieved").exists() == retrieved
