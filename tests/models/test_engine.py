"""The engines: one student, the same numbers whichever library multiplies."""

import sys
from pathlib import Path

import pytest
import torch

import stillscan.models
from stillscan.models.bundle import load_bundle
from stillscan.models.denoisers.student import StudentDenoiser
from stillscan.models.engines.choice import choose_engine, preferred_engines
from stillscan.models.engines.engine import EngineError, TorchEngine
from stillscan.models.engines.ncnn_engine import NcnnEngine
from stillscan.models.engines.openvino_engine import OpenVinoEngine
from stillscan.models.networks.student import StudentNetwork
from tests.models.test_student import white_profile

TOLERANCE = 1e-3  # of sigma: what engines may differ by in float32
ENGINES = {"ncnn": NcnnEngine, "openvino": OpenVinoEngine}


def make_network():
    """A small student that changes what it sees."""
    torch.manual_seed(0)
    network = StudentNetwork(widths=(8, 16, 24), middle_blocks=2).eval()
    torch.nn.init.normal_(network.noise.weight, std=0.3)
    return network


@pytest.fixture
def network():
    return make_network()


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


@pytest.mark.parametrize("name", ENGINES)
def test_results_of_one_call_outlive_the_next(network, name):
    """The library's own memory is used again; ours is not."""
    engine = ENGINES[name](network)
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
    said = "trained for no int8" if name == "openvino" else f"{name} has no int8"
    with pytest.raises(EngineError, match=said):
        {"torch": TorchEngine, **ENGINES}[name](network, precision="int8")


@pytest.mark.parametrize("wanted", ["torch", *ENGINES])
def test_the_engine_that_is_asked_for_is_taken(network, wanted):
    assert choose_engine(network, wanted, precision="float32").name == wanted


@pytest.mark.parametrize(
    ("bfloat16", "precision", "expected", "of_radiographs"),
    [
        (False, "auto", ["ncnn", "openvino"], []),
        (True, "auto", ["openvino"], ["openvino"]),
        (True, "float32", ["ncnn", "openvino"], []),
        (False, "bfloat16", ["openvino"], ["openvino"]),
        (False, "int8", ["openvino"], ["openvino"]),
    ],
)
def test_auto_goes_by_what_the_processor_multiplies(
    monkeypatch, bfloat16, precision, expected, of_radiographs
):
    monkeypatch.setattr(
        "stillscan.models.engines.choice.computes_bfloat16", lambda device: bfloat16
    )
    assert preferred_engines("cpu", precision) == expected
    assert preferred_engines("cpu", precision, large=True) == of_radiographs
    assert preferred_engines("cuda", precision) == []


def test_radiographs_stay_with_torch_in_float32(monkeypatch):
    monkeypatch.setattr("stillscan.models.engines.choice.computes_bfloat16", lambda device: False)
    bundles = Path(stillscan.models.__path__[0]) / "bundles"
    chosen = {name: load_bundle(bundles / name, engine="auto") for name in ("mr", "xray")}
    names = {name: bundle.denoiser.engine.name for name, bundle in chosen.items()}
    assert names == {"mr": "ncnn", "xray": "torch"}


def test_auto_takes_what_is_installed(network, monkeypatch):
    assert choose_engine(network, precision="float32").name == "ncnn"
    monkeypatch.setattr(
        "stillscan.models.engines.choice.find_spec", lambda name: name == "openvino"
    )
    assert choose_engine(network, precision="float32").name == "openvino"
    monkeypatch.setattr("stillscan.models.engines.choice.find_spec", lambda name: None)
    assert choose_engine(network, precision="float32").name == "torch"


def test_auto_goes_on_where_an_engine_does_not_start(network, monkeypatch, caplog):
    def broken(*arguments):
        raise RuntimeError("no such processor")

    monkeypatch.setattr("stillscan.models.engines.openvino_engine.OpenVinoEngine", broken)
    monkeypatch.setattr("stillscan.models.engines.ncnn_engine.NcnnEngine", broken)
    assert choose_engine(network, precision="float32").name == "torch"
    assert "ncnn does not start" in caplog.text
    assert "openvino does not start" in caplog.text


def test_ncnn_tells_that_memory_is_short(network):
    class NoMemory:
        def __init__(self, *arguments):
            pass

        def input(self, *arguments):
            pass

        def extract(self, name):
            return -100, None

    engine = NcnnEngine(network)
    engine._network = type("Network", (), {"create_extractor": NoMemory})()
    with pytest.raises(MemoryError, match="status -100"):
        engine.run(torch.randn(1, 13, 8, 8))


def test_ncnn_without_files_in_memory(network, monkeypatch, tmp_path):
    """Where the system has none, a temporary file does, and is gone afterwards."""
    monkeypatch.delattr("os.memfd_create")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen = torch.randn(1, 13, 8, 8)
    noise, _ = NcnnEngine(network).run(seen)
    torch.testing.assert_close(noise, TorchEngine(network).run(seen)[0], rtol=0, atol=TOLERANCE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_that_is_not_installed_is_named(network, name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match=f"{name} is not installed"):
        choose_engine(network, name)


def test_a_gpu_has_torch_alone(network):
    with pytest.raises(EngineError, match="openvino runs on a CPU only"):
        choose_engine(network, "openvino", "cuda")
