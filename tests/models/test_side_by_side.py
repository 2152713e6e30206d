"""Slices side by side: the same numbers, whatever the number of threads."""

import pytest
import torch

from stillscan.models.denoisers.student import StudentDenoiser
from stillscan.models.engines.engine import TorchEngine
from stillscan.models.engines.one_thread_per_slice import SideBySide
from stillscan.models.engines.openvino_engine import OpenVinoEngine
from stillscan.models.networks.student import StudentNetwork
from tests.models.test_student import white_profile


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = StudentNetwork(widths=(8, 16, 16), middle_blocks=1).eval()
    torch.nn.init.normal_(network.noise.weight, std=0.3)
    return network


@pytest.mark.parametrize("engine", [TorchEngine, OpenVinoEngine])
@pytest.mark.parametrize(("slices", "tile"), [(5, 512), (2, 24)])
def test_one_more_thread_changes_no_number(network, engine, slices, tile):
    image, profile = torch.rand(slices, 1, 48, 72), white_profile(0.1)
    found = []
    for threads in (1, 2, 2):
        denoiser = StudentDenoiser(network, engine=engine(network), tile=tile)
        denoiser._side_by_side = SideBySide(threads)
        found.append(denoiser.denoise(image, profile).mean)
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-6)
    assert torch.equal(found[1], found[2])  # same input, same output


def test_results_keep_their_order():
    assert SideBySide(3).map(lambda x: x * x, list(range(50))) == [x * x for x in range(50)]


def test_what_one_raises_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        SideBySide(2).map(lambda x: 1 // x, [1, 0])
