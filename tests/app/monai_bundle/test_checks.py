"""The bundles pass what the MONAI model zoo asks, and what is missing is found."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.app.bundles.files import STATE
from stillscan.app.bundles.metadata import BundleText, bundle_metadata, page
from stillscan.app.monai_bundle.checks import faults_of
from stillscan.app.training.trained_bundle import DATA_LICENCE, LICENCE
from stillscan.models.bundle import METADATA, save_bundle
from stillscan.models.networks.student import StudentNetwork


@pytest.mark.parametrize("name", ["ct", "mr", "xray"])
def test_a_shipped_bundle_lacks_nothing(name):
    assert list(faults_of(DEFAULT_BUNDLES / name)) == []


@pytest.fixture
def bundle(tmp_path):
    """A whole bundle with a tiny network."""
    return tiny_bundle(tmp_path / "toy")


def tiny_bundle(folder: Path) -> Path:
    from stillscan.app.bundles.files import add_bundle_files

    text = BundleText(
        name="toy",
        data_source="nothing",
        version="1.0.0",
        changelog="made",
        modalities=("MR",),
        noise_range=(0.001, 0.2),
        preliminary=True,
        training={"command": "none"},
        figures={"command": "none"},
    )
    metadata = bundle_metadata(text)
    torch.manual_seed(0)
    network = StudentNetwork(widths=(4, 8), middle_blocks=1)
    torch.nn.init.normal_(network.noise.weight, std=0.1)
    save_bundle(network, folder, metadata)
    add_bundle_files(folder, LICENCE, DATA_LICENCE)
    (folder / "docs" / "README.md").write_text(page(metadata, "none"), encoding="utf-8")
    return folder


def test_a_small_bundle_lacks_nothing(bundle):
    assert list(faults_of(bundle)) == []


def edit(file, before, after):
    def damage(bundle):
        text = (bundle / file).read_text(encoding="utf-8")
        assert before in text
        (bundle / file).write_text(text.replace(before, after, 1), encoding="utf-8")

    return damage


def other_weights(bundle):
    state = torch.load(bundle / STATE, weights_only=True)
    torch.save({name: tensor + 1 for name, tensor in state.items()}, bundle / STATE)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda bundle: (bundle / "LICENSE").unlink(), "LICENSE is missing"),
        (lambda bundle: (bundle / STATE).unlink(), "model.pt is missing"),
        (lambda bundle: (bundle / "docs/data_license.txt").unlink(), "data_license.txt is missing"),
        (edit(METADATA, '"1.0.0": "made"', '"0.9.0": "made"'), "no entry in changelog"),
        (edit(METADATA, '"authors"', '"owners"'), "'authors' is a required property"),
        (edit(METADATA, '"num_channels": 9', '"num_channels": 2'), "verify_net_in_out"),
        (edit(METADATA, '"num_channels": 2', '"num_channels": 1'), "output channel number"),
        (edit(METADATA, '"type": "image"', '"type": "picture"'), "'picture' is not one of"),
        (edit("configs/inference.yaml", "dataset_dir:", "images:"), "no key 'dataset_dir'"),
        (
            edit("configs/train.yaml", "max_epochs:", "epochs_at_most:"),
            "train::trainer::max_epochs",
        ),
        (edit("docs/README.md", "## Intended use", "## Use"), "no section 'Intended use'"),
        (other_weights, "different numbers"),
    ],
)
def test_what_is_wrong_is_found(bundle, damage, said):
    damage(bundle)
    assert said in "\n".join(faults_of(bundle))


def test_monai_verifies_the_metadata_against_the_schema_of_the_project(bundle, tmp_path):
    """`verify_metadata` takes a schema that is there already and fetches nothing."""
    from monai.bundle import verify_metadata

    from stillscan.app.monai_bundle.checks import SCHEMA

    shutil.copyfile(SCHEMA, tmp_path / "schema.json")
    verify_metadata(meta_file=str(bundle / METADATA), filepath=str(tmp_path / "schema.json"))
    metadata = json.loads((bundle / METADATA).read_text())
    del metadata["task"]
    (bundle / METADATA).write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(bundle / METADATA), filepath=str(tmp_path / "schema.json"))
