"""int8: what is rounded, how finely, and what a student learns from it."""

import copy
import math

import pytest
import torch
from torch import nn

from stillscan.models.engines.choice import choose_engine, prefers_int8
from stillscan.models.engines.engine import EngineError, TorchEngine
from stillscan.models.engines.openvino_engine import OpenVinoEngine
from stillscan.models.networks.quantization import (
    EXACT,
    LARGEST_WEIGHT,
    RATE,
    QuantizedConvolution,
    quantized,
    roundings,
)
from stillscan.models.networks.student import StudentNetwork
from stillscan.models.networks.weights import load_network, save_network
from stillscan.models.training.int8_training import choose_steps, imitation
from stillscan.models.training.loop import Training, train
from stillscan.models.training.losses import supervised
from stillscan.models.training.noisy_examples import TrainingImage, draw_batch
from tests.models.test_engine import make_network


@pytest.fixture
def network():
    return make_network()


def batches(count):
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0, 1, 96)[None] * torch.linspace(1, 0, 96)[:, None]
    images = [TrainingImage(ramp + 0.1 * torch.rand(96, 96, generator=generator))]
    return [draw_batch(images, 2, 3, number) for number in range(count)]


@pytest.fixture
def rounding_network(network):
    """With steps that suit what it sees."""
    rounding = quantized(network).eval()
    choose_steps(rounding, network, batches(2))
    return rounding


def one_layer(weight, step, *, signed):
    """A 1x1 convolution without bias that rounds."""
    layer = nn.Conv2d(1, 1, 1, bias=False)
    layer.weight.data.fill_(weight)
    rounding = QuantizedConvolution(layer, signed=signed)
    rounding.log_step.data.fill_(math.log(step) / RATE)
    return rounding


@pytest.mark.parametrize(
    ("signed", "expected"),
    [(True, [-12.8, -12.8, 0.0, 0.1, 12.7, 12.7]), (False, [0.0, 0.0, 0.0, 0.1, 12.8, 25.5])],
)
def test_inputs_become_whole_numbers_of_steps(signed, expected):
    inputs = torch.tensor([-100.0, -12.8, 0.04, 0.06, 12.8, 100.0]).view(1, 1, 1, -1)
    found = one_layer(1.0, 0.1, signed=signed)(inputs).flatten()
    torch.testing.assert_close(found, torch.tensor(expected))


def test_weights_have_seven_bits_for_each_output_channel():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 2, 3, padding=1)
    layer.weight.data[1] *= 100
    rounding = QuantizedConvolution(layer, signed=True)
    for channel in range(2):
        largest = layer.weight[channel].detach().abs().max()
        whole = weight_of(rounding)[channel] / largest * LARGEST_WEIGHT
        torch.testing.assert_close(whole, whole.round(), rtol=0, atol=1e-3)
        assert whole.abs().max() == pytest.approx(LARGEST_WEIGHT)
        assert len(whole.unique()) > 10


def weight_of(layer):
    """What a layer multiplies with: its answer to an input of one pixel in one channel."""
    weights = torch.zeros_like(layer.weight)
    for channel in range(layer.weight.shape[1]):
        impulse = torch.zeros(1, layer.weight.shape[1], 3, 3)
        impulse[0, channel, 1, 1] = 1
        with torch.no_grad():
            answer = layer(impulse) - layer(torch.zeros_like(impulse))
        weights[:, channel] = answer[0].flip(1, 2)
    return weights


def test_gradients_pass_rounding_and_stop_where_values_are_clipped():
    inputs = torch.tensor([0.04, 100.0]).view(1, 1, 1, 2).requires_grad_()
    layer = one_layer(1.0, 0.1, signed=True)
    layer(inputs).sum().backward()
    torch.testing.assert_close(inputs.grad.flatten(), torch.tensor([1.0, 0.0]))
    assert layer.log_step.grad != 0
    assert layer.weight.grad != 0


def test_first_and_last_layers_stay_exact(network):
    rounding = quantized(network)
    exact = [name for name, each in rounding.named_modules() if type(each) is nn.Conv2d]
    assert {name.split(".")[0] for name in exact} == {"body", "noise", "log_variance"}
    assert all(name.startswith(EXACT) for name in exact)
    assert "body.decoders.0.first" in exact
    assert len(roundings(rounding)) == 13
    assert not roundings(network)


def test_only_what_a_relu_leaves_is_unsigned(network):
    for name, each in roundings(quantized(network)).items():
        expected = (0, 255) if name.endswith("second") else (-128, 127)
        assert (each.lowest, each.highest) == expected, name


def test_the_exact_network_stays_as_it_was(network):
    before = copy.deepcopy(network.state_dict())
    rounding = quantized(network)
    for parameter in rounding.parameters():
        parameter.data.zero_()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_rounding_network_is_near_the_exact_one(network, rounding_network):
    batch = batches(1)[0]
    inputs = batch.noisy, batch.sigma, batch.correlation
    with torch.no_grad():
        exact, rounded = network(*inputs)[0], rounding_network(*inputs)[0]
    difference = (exact - rounded).square().mean().sqrt()
    assert 0 < difference < 0.15 * exact.std()


def test_first_steps_reach_a_share_of_the_largest_value(rounding_network):
    steps = {name: each.step for name, each in roundings(rounding_network).items()}
    assert all(1e-4 < step < 1 for step in steps.values())
    assert len(set(steps.values())) == len(steps)


@pytest.mark.slow
def test_imitation_learns_to_round(network, rounding_network):
    """What is lost falls to a fraction; the labels it learns from are the exact network's."""
    training = Training.begin(rounding_network.train(), 2e-3)
    objective, (batch,) = imitation(network), batches(1)
    first = objective(rounding_network, batch).reported.item()
    losses = [step.loss for step in train(training, iter([batch] * 60), objective, 60, 2e-3)]
    assert losses[-1] < 0.5 * first


def test_imitation_of_oneself_loses_nothing(network):
    batch = batches(1)[0]
    losses = imitation(network)(copy.deepcopy(network), batch)
    assert losses.reported.item() == 0
    assert supervised(network, batch).reported.item() != 0


def test_what_is_saved_is_what_is_loaded(rounding_network, tmp_path):
    save_network(rounding_network, tmp_path / "int8.safetensors")
    loaded = load_network(tmp_path / "int8.safetensors")
    assert isinstance(loaded, StudentNetwork)
    expected = roundings(rounding_network)
    for name, each in roundings(loaded).items():
        assert each.step == pytest.approx(expected[name].step, rel=0.02)
    seen = torch.randn(1, 13, 16, 16)
    found, wanted = loaded.eval().planes(seen)[0], rounding_network.planes(seen)[0]
    assert (found - wanted).square().mean().sqrt() < 0.1 * wanted.std()


@pytest.mark.parametrize("shape", [(1, 13, 32, 48), (2, 13, 4, 4), (1, 13, 64, 20)])
def test_openvino_computes_what_training_saw(network, rounding_network, shape):
    """Values at the edge of two steps fall to either side; the rounding itself costs far more."""
    seen = torch.randn(shape)
    expected, exact = TorchEngine(rounding_network).run(seen), TorchEngine(network).run(seen)
    for plane, trained, unrounded in zip(
        OpenVinoEngine(rounding_network, "int8").run(seen), expected, exact, strict=True
    ):
        assert plane.dtype == torch.float32
        error = (plane - trained).square().mean().sqrt()
        assert error < 0.02 * trained.std()
        assert error < 0.3 * (unrounded - trained).square().mean().sqrt()


def test_openvino_rounds_what_is_to_be_rounded(rounding_network):
    """It goes back to float32 without a word where it does not know the levels."""
    engine = OpenVinoEngine(rounding_network, "int8")
    engine.run(torch.randn(1, 13, 16, 16))
    ((_, compiled),) = engine._compiled.items()
    layers = compiled.get_runtime_model().get_ordered_ops()
    kinds = [each.get_rt_info()["primitiveType"].value for each in layers]
    convolutions = [
        kind
        for kind, each in zip(kinds, layers, strict=True)
        if each.get_rt_info()["layerType"].value == "Convolution"
    ]
    assert sum(kind.endswith("I8") for kind in convolutions) == len(roundings(rounding_network))


def test_products_of_the_largest_numbers_do_not_overflow():
    """Two products of 8 and 7 bits are added in 16 bits where a processor has no VNNI."""
    torch.manual_seed(0)
    network = quantized(make_network()).eval()
    for layer in network.modules():
        if isinstance(layer, QuantizedConvolution):
            layer.weight.data.fill_(0.01)
            layer.begin(1.0)
            layer.log_step.data -= 0.3  # everything is far beyond what whole numbers reach
    seen = 50 * torch.rand(1, 13, 16, 16)
    expected = TorchEngine(network).run(seen)[0]
    found = OpenVinoEngine(network, "int8").run(seen)[0]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_rounding_network_runs_in_int8_alone(network, rounding_network, precision):
    with pytest.raises(EngineError, match=f"trained for int8 only; precision is {precision}"):
        OpenVinoEngine(rounding_network, precision)
    with pytest.raises(EngineError, match="trained for no int8"):
        OpenVinoEngine(network, "int8")


@pytest.mark.parametrize("wanted", ["torch", "ncnn"])
def test_openvino_alone_has_int8(rounding_network, wanted):
    with pytest.raises(EngineError, match=f"{wanted} has no int8; engine openvino has it"):
        choose_engine(rounding_network, wanted, precision="int8")
    with pytest.raises(EngineError, match="on a CPU"):
        choose_engine(rounding_network, device="cuda", precision="int8")


def test_auto_takes_openvino_for_int8(rounding_network):
    engine = choose_engine(rounding_network, precision="int8")
    assert (engine.name, engine.precision) == ("openvino", "int8")


@pytest.mark.parametrize(
    ("wanted", "device", "precision", "bfloat16", "expected"),
    [
        ("auto", "cpu", "auto", False, True),
        ("openvino", "cpu", "auto", False, True),
        ("torch", "cpu", "auto", False, False),
        ("ncnn", "cpu", "auto", False, False),
        ("auto", "cpu", "auto", True, False),
        ("auto", "cuda", "auto", False, False),
        ("auto", "cpu", "float32", False, False),
    ],
)
def test_int8_where_it_is_the_best(monkeypatch, wanted, device, precision, bfloat16, expected):
    monkeypatch.setattr(
        "stillscan.models.engines.choice.computes_bfloat16", lambda device: bfloat16
    )
    assert prefers_int8(wanted, device, precision) == expected
    monkeypatch.setattr("stillscan.models.engines.choice.find_spec", lambda name: None)
    assert not prefers_int8(wanted, device, precision)
