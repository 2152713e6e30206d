"""Files of weights say which network they hold."""

import pytest
import torch

from stillscan.models.networks.blind_spot import BlindSpotNetwork
from stillscan.models.networks.conditional_diffusion import PAPER, DiffusionNetwork
from stillscan.models.networks.student import StudentNetwork
from stillscan.models.networks.weights import WeightsError, load_network, save_network


@pytest.mark.parametrize(
    "network",
    [
        BlindSpotNetwork(2, width=6, blocks=2),
        DiffusionNetwork(PAPER, widths=(8, 8, 16), middle_blocks=1),
        StudentNetwork(widths=(8, 8, 16), middle_blocks=1),
    ],
    ids=lambda network: type(network).__name__,
)
def test_a_network_comes_back_as_it_was_saved(tmp_path, network):
    save_network(network, tmp_path / "a.safetensors")
    found = load_network(tmp_path / "a.safetensors")
    assert type(found) is type(network)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor.half().float())


def test_a_diffusion_network_keeps_its_profile(tmp_path):
    save_network(DiffusionNetwork(PAPER, widths=(8, 8, 8)), tmp_path / "a.safetensors")
    assert load_network(tmp_path / "a.safetensors").profile == PAPER


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\x08" + b"\0" * 40])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.safetensors"):
        load_network(tmp_path / "a.safetensors")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"a\.safetensors"):
        load_network(tmp_path / "a.safetensors")


def test_an_unknown_network_is_refused(tmp_path):
    with pytest.raises(TypeError, match="Linear"):
        save_network(torch.nn.Linear(1, 1), tmp_path / "a.safetensors")
