"""The train task under MONAI Label's own `BasicTrainTask`: a bundle of the site comes out."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest
from monailabel.datastore.local import LocalDatastore
from monailabel.tasks.train.basic_train import BasicTrainTask

from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.app.settings import load_settings
from stillscan.app.training.checkpoints import save_json
from stillscan.app.training.errors import OutputHoldsRunError, UnknownModalityError
from stillscan.app.training.profiles import PROFILES
from stillscan.app.training.request import RUN
from stillscan.deploy.monailabel.errors import RequestError
from stillscan.deploy.monailabel.train_task import ThreeStageTask, part_done
from stillscan.models.bundle import find_bundles, load_bundle
from tests.app.training.tiny_training import TINY, noisy_stack

BUNDLES = {each.name: each for each in find_bundles(DEFAULT_BUNDLES)}
CPU = {"device": "cpu"}
REQUEST = {"model": "stillscan", "modality": "MR", "profile": "quick", **CPU}


@pytest.fixture
def store(tmp_path):
    """A local datastore with two images, and a label that is none of them."""
    folder = tmp_path / "studies"
    (folder / "labels" / "final").mkdir(parents=True)
    nibabel.save(
        nibabel.Nifti1Image(np.ones((96, 96, 4), np.uint8), np.eye(4)),
        folder / "labels" / "final" / "sub-01_T1w.nii.gz",
    )
    for subject in ("sub-01", "sub-02"):
        image = noisy_stack(4, 96, seed=len(subject)).transpose(2, 1, 0)
        nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), folder / f"{subject}_T1w.nii.gz")
    return LocalDatastore(str(tmp_path / "studies"), extensions=["*.nii.gz"], auto_reload=False)


@pytest.fixture
def task(tmp_path, monkeypatch):
    monkeypatch.setitem(PROFILES, "quick", replace(TINY, label_pixels=2**14, judged=1))
    return ThreeStageTask(tmp_path / "model", load_settings(), BUNDLES)


def test_its_parameters_are_those_that_it_reads(task):
    assert isinstance(task, BasicTrainTask)
    assert set(task.config()) == {"name", "profile", "modality", "start", "device", "multi_gpu"}
    assert task.stats() == {}


def test_three_stages_give_a_bundle_that_denoises(task, store, tmp_path, capsys):
    stats = task({**REQUEST, "name": "ward7"}, store)
    (info,) = find_bundles(tmp_path / "model")
    assert (info.name, info.modalities) == ("ward7", ("MR",))
    load_bundle(info.folder)
    said = capsys.readouterr().out
    for stage in ("blind spot", "diffusion", "one step", "student"):
        assert f"{stage}: " in said
    assert "sub-01" in said
    assert (stats["epoch"], stats["total_epochs"], stats["name"]) == (100, 100, "ward7")
    assert task.stats() == stats
    with pytest.raises(OutputHoldsRunError):
        task({**REQUEST, "name": "ward7"}, store)


def test_a_run_that_was_killed_goes_on(task, store, tmp_path, monkeypatch):
    import stillscan.app.training.run as run

    class KilledError(Exception):
        pass

    def killed(*arguments, **keywords):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(run, "train_one_step", killed)
        with pytest.raises(KilledError):
            task({**REQUEST, "name": "ward7"}, store)
    assert 0 < task.stats()["epoch"] < 100
    assert not find_bundles(tmp_path / "model")
    finished = sorted((tmp_path / "model" / "ward7" / RUN).glob("*blind*"))
    before = [path.stat().st_mtime_ns for path in finished]
    task({**REQUEST, "name": "ward7"}, store)
    assert [path.stat().st_mtime_ns for path in finished] == before
    assert find_bundles(tmp_path / "model")


def test_only_the_images_that_are_named_are_used(task, store, tmp_path):
    found = task.pre_process({"name": "site", "images": store.list_images()[:1]}, store)
    assert len([path for path in found.rglob("*") if path.is_symlink()]) == 1


def test_a_start_is_a_bundle(task, tmp_path):
    wanted = task.training_request({**REQUEST, "name": "site", "start": "mr"}, tmp_path)
    assert wanted.start == BUNDLES["mr"].folder
    assert task.training_request({**REQUEST, "name": "site"}, tmp_path).start is None


def test_a_bundle_that_is_started_from_is_adapted_where_nothing_else_is_said(task, tmp_path):
    request = {**task.config(), **CPU, "start": "mr"}
    assert task.training_request(request, tmp_path).profile_name == "adapt"
    assert task.training_request({**request, "profile": "quick"}, tmp_path).profile_name == "quick"
    assert task.training_request({**request, "start": "none"}, tmp_path).profile_name == "quick"


def test_files_whose_modality_nobody_says_are_not_trained_on(task, store):
    with pytest.raises(UnknownModalityError):
        task({**REQUEST, "name": "site", "modality": "as the images say"}, store)


@pytest.mark.parametrize("name", ["", "../mr", "a/b", ".hidden", "mr"])
def test_a_name_is_no_path_and_no_bundle_that_is_there(task, store, name):
    with pytest.raises(RequestError):
        task({**REQUEST, "name": name}, store)


def test_the_share_that_is_done_grows_from_stage_to_stage():
    last = ("second student", PROFILES["quick"].student.steps)
    rows = [("blind spot", 50), ("diffusion", 50), ("one step", 50), ("student", 50), last]
    shares = [
        part_done({"stage": stage, "step": str(step)}, PROFILES["quick"]) for stage, step in rows
    ]
    assert shares == sorted(shares)
    assert shares[-1] == 100


def test_a_run_without_a_log_has_done_nothing(task, tmp_path):
    (tmp_path / "model").mkdir()
    save_json({"name": "site", "profile": "quick"}, tmp_path / "model" / "train_stats.json")
    assert task.stats()["epoch"] == 0
