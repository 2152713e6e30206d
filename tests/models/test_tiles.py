"""Tiles: what is cut and put together again is what was never cut."""

import pytest
import torch

from stillscan.models.denoisers.student import StudentDenoiser
from stillscan.models.engines.tiling import spans
from stillscan.models.networks.student import StudentNetwork
from tests.models.test_student import white_profile


@pytest.mark.parametrize("length", [4, 40, 44, 100, 128, 1500])
@pytest.mark.parametrize("overlap", [0, 12, 40])
def test_the_parts_of_the_tiles_are_the_whole_side(length, overlap):
    tiles = list(spans(length, 48, overlap, 4))
    taken = [pixel for _, inner in tiles for pixel in range(inner.start, inner.stop)]
    assert taken == list(range(length))
    for outer, inner in tiles:
        assert outer.start == 0 or inner.start - outer.start >= overlap
        assert outer.stop == length or outer.stop - inner.stop >= overlap
        assert outer.start % 4 == outer.stop % 4 == 0
    assert len({outer.stop - outer.start for outer, _ in tiles}) == 1


def test_tiles_at_the_border_reach_no_farther_than_they_must():
    """Of a radiograph of 2048 pixels, in half-resolution pixels: an eighth more than the whole."""
    tiles = [outer for outer, _ in spans(1024, 512, 32, 4)]
    assert tiles == [slice(0, 544), slice(480, 1024)]


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = StudentNetwork(widths=(8, 16, 16), middle_blocks=2)
    torch.nn.init.normal_(network.noise.weight, std=0.3)
    return network


@pytest.mark.parametrize(("levels", "middle_blocks"), [(3, 2), (3, 1), (2, 3), (4, 1)])
def test_the_reach_is_how_far_an_output_depends_on_what_is_seen(levels, middle_blocks):
    """No farther, and no less: by the gradient of the outputs of one cell."""
    torch.manual_seed(0)
    network = StudentNetwork(widths=(4,) * levels, middle_blocks=middle_blocks).double()
    torch.nn.init.normal_(network.noise.weight, std=0.3)
    cell, middle = 2 ** (levels - 1), 96
    seen = torch.rand(1, 13, 2 * middle, 2 * middle, dtype=torch.double, requires_grad=True)
    features = network.body(seen)
    planes = network.noise(features), network.log_variance(features)  # detached in `planes`
    inner = slice(middle, middle + cell)
    sum(plane[..., inner, inner].abs().sum() for plane in planes).backward()
    (rows,) = seen.grad.abs().sum((0, 1, 3)).nonzero(as_tuple=True)
    assert (middle - rows.min(), rows.max() - middle - cell + 1) == (network.reach, network.reach)


@pytest.mark.parametrize("size", [(322, 250), (200, 410)])
def test_a_tiled_image_is_the_whole_image(network, size):
    image, profile = torch.rand(1, 1, *size), white_profile(0.1)
    whole = StudentDenoiser(network, precision=torch.float32).denoise(image, profile)
    tiled = StudentDenoiser(network, precision=torch.float32, tile=48).denoise(image, profile)
    torch.testing.assert_close(tiled.mean, whole.mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(tiled.spread, whole.spread, rtol=0, atol=1e-6)


def test_an_overlap_below_the_reach_shows_seams(network, monkeypatch):
    """The comparison above can fail."""
    image, profile = torch.rand(1, 1, 322, 250), white_profile(0.1)
    whole = StudentDenoiser(network, precision=torch.float32).denoise(image, profile)
    monkeypatch.setattr(StudentNetwork, "reach", 4)
    tiled = StudentDenoiser(network, precision=torch.float32, tile=48).denoise(image, profile)
    assert (tiled.mean - whole.mean).abs().max() > 1e-4
