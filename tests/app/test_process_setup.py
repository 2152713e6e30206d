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
"""


def printed(program: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_network_gives_the_same_numbers() -> None:
    assert printed(LEAN + NETWORK) == printed(NETWORK)


def test_what_was_left_out_can_be_imported_later() -> None:
    printed(LEAN + META)


def test_torch_that_is_there_already_is_left_alone() -> None:
    printed("import torch\nbefore = torch._meta_registrations\n" + LEAN.replace("not in", "in"))
