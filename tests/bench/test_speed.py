"""The benchmark's own arithmetic: work, growth, and the tables it prints."""

import pytest
import torch
from torch import nn

from bench.speed.growth import Growth
from bench.speed.peak import student_gflop
from bench.speed.run import markdown
from bench.speed.stages import StageTime
from stillscan.models.networks.student import StudentNetwork


def test_the_work_of_a_student_is_what_its_layers_do():
    network = StudentNetwork(widths=(8, 16, 24), middle_blocks=1)
    counted = 0

    def count(layer, given, result):
        nonlocal counted
        outputs = result[0, 0].numel() * layer.weight.numel()
        counted += 2 * outputs // (4 if isinstance(layer, nn.ConvTranspose2d) else 1)

    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            layer.register_forward_hook(count)
    network.planes(torch.zeros(1, 13, 32, 16))
    assert student_gflop(network, 64 * 32) == pytest.approx(counted / 1e9)


def test_the_shipped_student_does_36_gflop_on_a_slice():
    assert student_gflop(StudentNetwork(), 512**2) == pytest.approx(36, abs=1.5)


@pytest.mark.parametrize("exponent", [1.0, 1.3])
def test_growth_finds_the_exponent(exponent):
    sizes = (10, 100, 1000)
    growth = Growth("any", sizes, tuple(0.3 * size**exponent for size in sizes))
    assert growth.exponent == pytest.approx(exponent)


def test_the_table_holds_what_was_measured():
    stage = StageTime("student, any", 512, 1, 0.25, 0.5, 0.875, 0.01)
    text = markdown({"processor": "any"}, [], [], [stage], [Growth("pixels", (1, 2), (1.0, 2.0))])
    assert "| student, any | 1 | 0.2500 | 0.5000 | 88% | 0.010 |" in text
    assert "pixels: time ~ size ^ 1.00" in text
