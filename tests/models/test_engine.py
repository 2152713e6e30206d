"""The engines: one student, the same numbers whichever library multiplies."""

import sys

import pytest
import torch

from models.engine import EngineError, TorchEngine
from models.engine_choice import choose_engine
from models.engine_onnxruntime import OnnxRuntimeEngine
from models.engine_openvino import OpenVinoEngine
from models.student import StudentDenoiser, StudentNetwork
from tests.models.test_student import white_profile

TOLERANCE = 1e-3  # of sigma: what engines may differ by in float32
ENGINES = {"openvino": OpenVinoEngine, "onnxruntime": OnnxRuntimeEngine}


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = StudentNetwork(widths=(8, 16, 24), middle_blocks=2).eval()
    torch.nn.init.normal_(network.noise.weight, std=0.3)
    return network


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("shape", [(1, 13, 32, 48), (2, 13, 4, 4), (1, 13, 64, 20)])
def test_every_engine_has_the_planes_of_torch(network, name, shape):
    seen = torch.randn(shape)
    expected = TorchEngine(network).run(seen)
    for plane, of_torch in zip(ENGINES[name](network).run(seen), expected, strict=True):
        assert plane.dtype == torch.float32
        torch.testing.assert_close(plane, of_torch, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_gives_the_image_of_torch(network, name):
    image, profile = torch.rand(3, 1, 90, 70), white_profile(0.1)
    expected = StudentDenoiser(network, precision=torch.float32).denoise(image, profile)
    denoiser = StudentDenoiser(network, engine=ENGINES[name](network))
    for _ in range(2):  # with a network that is compiled already as well
        found = denoiser.denoise(image, profile)
        torch.testing.assert_close(found.mean, expected.mean, rtol=0, atol=0.1 * TOLERANCE)
        torch.testing.assert_close(found.spread, expected.spread, rtol=1e-3, atol=0)


def test_results_of_one_call_outlive_the_next(network):
    """The library's own memory is used again; ours is not."""
    engine = OpenVinoEngine(network)
    first, _ = engine.run(torch.randn(1, 13, 16, 16))
    kept = first.clone()
    engine.run(torch.randn(1, 13, 16, 16))
    assert torch.equal(first, kept)


def test_only_the_last_shapes_stay_compiled(network):
    engine = OpenVinoEngine(network)
    for size in range(4, 44, 4):
        engine.run(torch.randn(1, 13, 4, size))
    assert len(engine._compiled) == 4


@pytest.mark.parametrize("name", ["torch", *ENGINES])
def test_a_precision_that_an_engine_lacks_is_named(network, name):
    with pytest.raises(EngineError, match=f"{name} has no int8"):
        {"torch": TorchEngine, **ENGINES}[name](network, precision="int8")


@pytest.mark.parametrize("wanted", ["torch", "openvino", "onnxruntime"])
def test_the_engine_that_is_asked_for_is_taken(network, wanted):
    assert choose_engine(network, wanted, precision="float32").name == wanted


def test_auto_takes_openvino_on_a_cpu_and_torch_where_it_is_missing(network, monkeypatch):
    assert choose_engine(network).name == "openvino"
    monkeypatch.setattr("models.engine_choice.find_spec", lambda name: None)
    assert choose_engine(network).name == "torch"


def test_auto_goes_on_with_torch_where_openvino_does_not_start(network, monkeypatch, caplog):
    def broken(*arguments):
        raise RuntimeError("no such processor")

    monkeypatch.setattr("models.engine_openvino.OpenVinoEngine", broken)
    assert choose_engine(network).name == "torch"
    assert "openvino does not start" in caplog.text


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_that_is_not_installed_is_named(network, name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match=f"{name} is not installed"):
        choose_engine(network, name)


def test_a_gpu_has_torch_alone(network):
    with pytest.raises(EngineError, match="openvino computes on a CPU alone"):
        choose_engine(network, "openvino", "cuda")
