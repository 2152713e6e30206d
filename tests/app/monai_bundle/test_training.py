"""`train.yaml` runs the project's own training through MONAI's bundle tools."""

import json

import numpy as np
import pytest
from monai.bundle import run

from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.app.monai_bundle.checks import faults_of
from stillscan.app.monai_bundle.training import StagesTrainer, lengthened, noisy_images
from stillscan.app.training.profiles import PROFILES, QUICK
from stillscan.models.bundle import METADATA
from tests.app.training.tiny_training import TINY, noisy_stack


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "a.npz", noisy_stack(5))
    return tmp_path / "data"


@pytest.mark.slow
def test_the_config_trains_a_whole_bundle(data, tmp_path, monkeypatch):
    monkeypatch.setitem(PROFILES, "tiny", TINY)
    root = DEFAULT_BUNDLES / "mr"
    run(
        config_file=str(root / "configs" / "train.yaml"),
        logging_file=False,
        bundle_root=str(root),
        dataset_dir=str(data),
        output_dir=str(tmp_path / "new"),
        device="cpu",
        modality="MR",
        profile="tiny",
    )
    assert list(faults_of(tmp_path / "new")) == []
    ours = json.loads((tmp_path / "new" / METADATA).read_text())["stillscan"]
    assert ours["training"]["profile"] == "tiny"
    assert ours["training"]["first_weights"] is None


def test_an_epoch_is_the_updates_of_the_profile():
    twice = lengthened(QUICK, 2)
    assert twice.student.steps == 2 * QUICK.student.steps
    assert twice.blind_spot.steps == 2 * QUICK.blind_spot.steps
    assert twice.widths == QUICK.widths


def test_adapting_begins_with_this_bundle(tmp_path):
    request = StagesTrainer("BUNDLE", "DATA", "OUT", profile="adapt", adapt=True).training_request()
    assert request.start is not None
    assert request.start.name == "BUNDLE"
    assert StagesTrainer("BUNDLE", "DATA", "OUT").training_request().start is None


def test_the_data_set_holds_what_is_trained_on(data):
    images = noisy_images(data, "MR")
    assert len(images) == 5
    assert all(image.profile.sigma > 0 for image in images)
