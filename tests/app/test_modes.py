"""One setting chooses between the student and its teacher."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from stillscan.app.cli import app
from stillscan.models.bundle import BLIND_SPOT, save_bundle
from stillscan.models.networks.blind_spot import BlindSpotNetwork
from stillscan.models.networks.conditional_diffusion import DiffusionNetwork
from stillscan.models.networks.student import StudentNetwork
from tests.series_factory import make_series

MODES = ("student", "fast_student", "srds", "one_step", "blind_spot")


def make_bundle(folder: Path, *, complete: bool) -> None:
    torch.manual_seed(0)
    diffusion = DiffusionNetwork(widths=(8, 8, 8), middle_blocks=1)
    torch.nn.init.normal_(diffusion.output.weight, std=0.02)
    metadata = {
        "version": "1",
        "stillscan": {"modalities": ["MR"], "noise_range": [0.0, 1.0], "preliminary": False},
    }
    save_bundle(
        student(),
        folder,
        metadata,
        (BlindSpotNetwork(0, width=4, blocks=1), diffusion) if complete else None,
        student() if complete else None,
    )


def student() -> StudentNetwork:
    network = StudentNetwork(widths=(8, 8, 8), middle_blocks=1)
    torch.nn.init.normal_(network.noise.weight, std=0.02)
    return network


def denoise(source: Path, out: Path, models: Path, mode: str) -> Result:
    arguments = ["denoise", str(source), str(out), "--models", str(models), "--mode", mode]
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_a_bundle_runs_and_the_result_names_it(tmp_path: Path, mode: str) -> None:
    make_series(tmp_path / "in")
    make_bundle(tmp_path / "toy", complete=True)
    result = denoise(tmp_path / "in", tmp_path / "out", tmp_path / "toy", mode)
    if result.exit_code == 4:  # an untrained network may be refused: by the gate, and only by it
        assert "quality-gate" in result.stderr
        return
    assert result.exit_code == 0, result.output
    (series,) = json.loads((tmp_path / "out" / "report" / "result.json").read_text())["series"]
    assert series["method"]["mode"] == mode


@pytest.mark.parametrize(
    ("mode", "said"),
    [("srds", "does not hold the networks"), ("fast_student", "has no fast student")],
)
def test_a_bundle_without_what_a_mode_needs_says_so(tmp_path: Path, mode: str, said: str) -> None:
    make_series(tmp_path / "in")
    make_bundle(tmp_path / "toy", complete=False)
    result = denoise(tmp_path / "in", tmp_path / "out", tmp_path / "toy", mode)
    assert result.exit_code == 6
    assert f"bundle toy {said}" in result.stderr
    assert not list((tmp_path / "out").glob("*"))


def test_a_damaged_teacher_is_a_model_fault(tmp_path: Path) -> None:
    make_series(tmp_path / "in")
    make_bundle(tmp_path / "toy", complete=True)
    (tmp_path / "toy" / BLIND_SPOT).write_bytes(b"broken")
    result = denoise(tmp_path / "in", tmp_path / "out", tmp_path / "toy", "one_step")
    assert result.exit_code == 6
    assert "blind_spot.safetensors" in result.stderr
