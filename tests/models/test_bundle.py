"""Bundles: what is saved is what is loaded; what is damaged is said."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from stillscan.models.bundle import (
    FAST_STUDENT,
    FAST_STUDENT_INT8,
    METADATA,
    WEIGHTS,
    BundleError,
    find_bundles,
    load_bundle,
    load_mode,
    read_info,
    save_bundle,
)
from stillscan.models.denoisers.denoiser import Denoiser
from stillscan.models.denoisers.student import StudentDenoiser
from stillscan.models.engines.engine import EngineError
from stillscan.models.networks.blind_spot import BlindSpotNetwork
from stillscan.models.networks.quantization import quantized
from stillscan.models.networks.student import StudentNetwork
from stillscan.models.networks.weights import save_network

SHIPPED = Path(__file__).resolve().parents[2] / "models" / "bundles"


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    network = StudentNetwork(widths=(8, 8, 8), middle_blocks=1)
    metadata = {"version": "1.2.3", "stillscan": {"modalities": ["MR"], "noise_range": [0.0, 0.2]}}
    save_bundle(network, tmp_path / "toy", metadata)
    return tmp_path / "toy"


def test_a_bundle_gives_back_the_weights_it_was_given(folder):
    torch.manual_seed(0)
    network = StudentNetwork(widths=(8, 8, 8), middle_blocks=1)
    loaded = load_bundle(folder).denoiser.network
    for name, value in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=1e-3, atol=1e-6)


def test_info_is_read_without_weights(folder):
    (folder / WEIGHTS).unlink()
    info = read_info(folder)
    assert (info.name, info.version, info.modalities) == ("toy", "1.2.3", ("MR",))


def test_find_bundles_takes_a_folder_of_bundles_or_one_bundle(folder):
    assert [info.name for info in find_bundles(folder.parent)] == ["toy"]
    assert [info.name for info in find_bundles(folder)] == ["toy"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / WEIGHTS).unlink(),
        lambda folder: (folder / WEIGHTS).write_bytes(b"\xff" * 100),
        lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100]),
        lambda folder: (folder / METADATA).write_text("{"),
        lambda folder: (folder / METADATA).write_text("{}"),
    ],
    ids=["no weights", "not safetensors", "cut weights", "not JSON", "no version"],
)
def test_a_damaged_bundle_is_an_error_that_names_it(folder, damage):
    damage(folder)
    with pytest.raises(BundleError, match="toy"):
        load_bundle(folder)


def test_weights_of_another_network_are_an_error(folder):
    metadata = json.loads((folder / METADATA).read_text())
    metadata["stillscan"]["network"]["widths"] = [8, 16, 8]
    (folder / METADATA).write_text(json.dumps(metadata))
    with pytest.raises(BundleError, match="toy"):
        load_bundle(folder)


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(BundleError):
        find_bundles(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["ct", "mr", "xray"])
def test_shipped_bundles_load_and_say_what_they_are(name):
    bundle = load_bundle(SHIPPED / name)
    metadata = bundle.info.metadata
    assert (SHIPPED / name / WEIGHTS).stat().st_size < 10e6
    assert metadata["license"] == "Apache-2.0"
    assert "not a cleared medical device" in metadata["intended_use"].lower()
    assert metadata["stillscan"]["training"]["split"]
    assert metadata["stillscan"]["figures"]["psnr_db"]
    assert metadata["stillscan"]["preliminary"] == (name == "ct")
    served = {"ct": ("CT",), "mr": ("MR",), "xray": ("CR", "DX")}
    assert bundle.modalities == served[name]


def test_a_fast_student_is_the_network_that_was_saved(folder):
    torch.manual_seed(1)
    fast = StudentNetwork(widths=(8, 8, 16), middle_blocks=1)
    save_network(fast, folder / FAST_STUDENT)
    denoiser, digest = load_mode(folder, "fast_student")
    assert isinstance(denoiser, StudentDenoiser)
    assert denoiser.network.widths == (8, 8, 16)
    assert digest != load_mode(folder, "student")[1]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "has no fast student"),
        (lambda path: path.write_bytes(b"\xff" * 100), "cannot be loaded"),
        (lambda path: save_network(BlindSpotNetwork(0, width=4, blocks=1), path), "another"),
    ],
    ids=["none", "not safetensors", "a teacher"],
)
def test_a_bundle_whose_fast_student_cannot_run_says_so(folder, damage, said):
    save_network(StudentNetwork(widths=(8, 8, 8), middle_blocks=1), folder / FAST_STUDENT)
    damage(folder / FAST_STUDENT)
    with pytest.raises(BundleError, match=f"toy.*{said}"):
        load_mode(folder, "fast_student")


@pytest.fixture
def with_int8(folder, monkeypatch):
    """A bundle whose fast student is also there in int8, on a processor without bfloat16."""
    fast = StudentNetwork(widths=(8, 8, 8), middle_blocks=1)
    save_network(fast, folder / FAST_STUDENT)
    save_network(quantized(fast), folder / FAST_STUDENT_INT8)
    monkeypatch.setattr("stillscan.models.engines.choice.computes_bfloat16", lambda device: False)
    return folder


@pytest.mark.parametrize(
    ("precision", "engine", "expected"),
    [
        ("auto", "auto", "int8"),
        ("auto", "openvino", "int8"),
        ("int8", "auto", "int8"),
        ("auto", "torch", "float32"),
        ("float32", "openvino", "float32"),
    ],
)
def test_the_fast_student_comes_in_int8_where_that_is_best(with_int8, precision, engine, expected):
    denoiser, digest = load_mode(with_int8, "fast_student", "cpu", precision, engine)
    assert denoiser.engine.precision == expected
    file = FAST_STUDENT_INT8 if expected == "int8" else FAST_STUDENT
    assert digest == hashlib.sha256((with_int8 / file).read_bytes()).hexdigest()


def test_a_bundle_without_int8_computes_without(with_int8):
    (with_int8 / FAST_STUDENT_INT8).unlink()
    assert load_mode(with_int8, "fast_student", engine="auto")[0].engine.precision == "float32"
    with pytest.raises(BundleError, match=r"has no fast student int8 \(fast_student_int8"):
        load_mode(with_int8, "fast_student", precision="int8", engine="auto")


def test_the_student_itself_has_no_int8(with_int8):
    assert load_mode(with_int8, "student", engine="auto")[0].engine.precision == "float32"
    with pytest.raises(EngineError, match="has no int8"):
        load_mode(with_int8, "student", precision="int8", engine="auto")
    with pytest.raises(EngineError, match="trained for no int8"):
        load_mode(with_int8, "student", precision="int8", engine="openvino")


def test_int8_that_does_not_start_gives_way_unless_it_was_asked_for(with_int8, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("no such processor")

    monkeypatch.setattr("stillscan.models.engines.openvino_engine.OpenVinoEngine", broken)
    assert load_mode(with_int8, "fast_student", engine="auto")[0].engine.name == "ncnn"
    with pytest.raises(EngineError, match="has no int8"):
        load_mode(with_int8, "fast_student", precision="int8", engine="auto")


@pytest.mark.parametrize("mode", ["student", "fast_student", "srds", "one_step", "blind_spot"])
@pytest.mark.parametrize("name", ["ct", "mr", "xray"])
def test_a_shipped_bundle_has_every_mode(name, mode):
    denoiser, digest = load_mode(SHIPPED / name, mode)
    assert isinstance(denoiser, Denoiser)
    assert len(digest) == 64
