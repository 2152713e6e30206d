"""torch without its meta kernels: sooner there, and the same network."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

LEAN = """
import sys
from stillscan.app.process_setup import import_torch
import_torch()
import torch
assert "torch._meta_registrations" not in sys.modules
print("set up")
"""
NETWORK = """
import torch
from pathlib import Path
from stillscan.models.bundle import load_bundle
denoiser = load_bundle(Path("models/bundles/mr"), precision="float32").denoiser
seen = torch.linspace(-3, 3, 13 * 32 * 32).reshape(1, 13, 32, 32)
print(float(denoiser.engine.run(seen)[0].double().sum()))
"""
META = """
import torch._meta_registrations
assert torch.empty(2, 3, device="meta").to(torch.int8).cumsum(0).shape == (2, 3)
print("imported later")
"""


def printed(program: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


@pytest.fixture(scope="module")
def lean() -> list[str]:
    """What a process prints that begins without the meta kernels and imports them at its end."""
    return printed(LEAN + NETWORK + META)


@pytest.fixture(scope="module")
def whole() -> list[str]:
    """What one prints that has imported all of torch before."""
    return printed("import torch\n" + LEAN.replace("not in", "in") + NETWORK)


def test_the_network_gives_the_same_numbers(lean: list[str], whole: list[str]) -> None:
    assert lean[:2] == ["set up", whole[1]]


def test_what_was_left_out_can_be_imported_later(lean: list[str]) -> None:
    assert lean[2:] == ["imported later"]


def test_torch_that_is_there_already_is_left_alone(whole: list[str]) -> None:
    assert whole[0] == "set up"
