"""`stillscan evaluate` from a folder of images to tables, plots and page."""

import csv
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.app.cli import app
from stillscan.app.evaluation import peers
from stillscan.app.evaluation.noise_cases import noise_case
from stillscan.app.evaluation.peers import PackageMissingError
from stillscan.app.evaluation.run import Evaluation, Plan
from stillscan.models.bundle import BLIND_SPOT, DIFFUSION
from stillscan.models.networks.blind_spot import BlindSpotNetwork
from stillscan.models.networks.conditional_diffusion import DEFAULT, DiffusionNetwork
from stillscan.models.networks.student import StudentNetwork
from stillscan.models.networks.weights import save_network
from stillscan.models.training.dead_leaves import dead_leaves
from stillscan.operators.errors import StillscanError
from stillscan.operators.reading.decoder import Decoder

ROOT = Path(__file__).resolve().parents[3]
SIZE = 192
FEW = ("--methods", "noisy,student,TV", "--noise", "gaussian 15", "--crop", "64")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "Doe_John"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("first", "second"):
        image = dead_leaves(SIZE, rng) + 0.01 * rng.standard_normal((SIZE, SIZE))
        np.savez(folder / f"{name}.npz", data=(1000 * image).astype(np.float32)[None])
    return folder


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def evaluated(images, tmp_path_factory):
    """The folder of the results that a process of its own has written."""
    out = tmp_path_factory.mktemp("evaluated") / "out"
    command = [
        sys.executable,
        "-c",
        "from stillscan.app.cli import main; main()",
        "evaluate",
        images,
    ]
    done = subprocess.run(
        [*command, "--out", out, *FEW], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out


def read(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.slow
def test_a_folder_of_two_images_becomes_tables_plots_and_a_page(evaluated):
    out = evaluated
    summary = {(row["method"], row["metric"]): row for row in read(out / "summary.csv")}
    peak = {name: float(summary[name, "psnr"]["mean"]) for name in ("noisy", "student", "TV")}
    assert peak["noisy"] == pytest.approx(24.6, abs=0.2)
    assert peak["student"] > peak["noisy"]
    assert float(summary["noisy", "error_noise_correlation"]["mean"]) == pytest.approx(1, abs=1e-3)
    assert len(read(out / "slices.csv")) == 2 * 4  # student, blind and with oracle noise
    assert {row["shape"] for row in read(out / "lesions.csv")} <= {"disc", "line", "texture"}
    figures = json.loads((out / "evaluation.json").read_text())
    assert {row["method"] for row in figures["simulated"]} >= {"noisy", "student"}
    assert "| student |" in (out / "evaluation.md").read_text()


@pytest.mark.slow
def test_the_page_stands_alone_and_names_neither_files_nor_folders(evaluated):
    page = (evaluated / "evaluation.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    for path in evaluated.iterdir():
        assert b"Doe" not in path.read_bytes(), path.name
        assert b"second.npz" not in path.read_bytes(), path.name


@pytest.mark.slow
def test_what_was_measured_is_not_measured_again_and_rows_can_be_added(images, evaluated, tmp_path):
    out = shutil.copytree(evaluated, tmp_path / "out")
    ledger = out / "measurements.jsonl"
    first = ledger.read_text()
    with ledger.open("a") as file:
        file.write('{"key": "cut off by a ki')
    done = run(images, "--out", out, *FEW[2:], "--methods", "TV,wavelet")
    assert done.exit_code == 0, done.stderr
    assert ledger.read_text().startswith(first)
    assert len(ledger.read_text().splitlines()) == len(first.splitlines()) + 1 + 2
    names = {row["method"] for row in read(out / "slices.csv")}
    assert names == {"noisy", "TV", "wavelet"}


@pytest.mark.slow
def test_the_same_command_gives_the_same_figures(images, evaluated, tmp_path):
    assert run(images, "--out", tmp_path / "again", *FEW).exit_code == 0
    first, again = (
        [row for row in read(out / "summary.csv") if row["metric"] != "seconds"]
        for out in (evaluated, tmp_path / "again")
    )
    assert first == again


@pytest.mark.slow
def test_networks_of_a_folder_become_rows(images, tmp_path):
    torch.manual_seed(0)
    networks = tmp_path / "networks"
    save_network(BlindSpotNetwork(0, width=8, blocks=1), networks / "blind_spot.safetensors")
    save_network(DiffusionNetwork(DEFAULT, (8, 16)), networks / "diffusion.safetensors")
    save_network(StudentNetwork((8, 16), 1), networks / "supervised.safetensors")
    out = tmp_path / "out"
    wanted = "blind spot,supervised,one step,DDIM 5,SRDS"
    few = ("--noise", "gaussian 15", "--crop", "48")
    done = run(images, "--out", out, "--controls", networks, "--methods", wanted, *few)
    assert done.exit_code == 0, done.stderr
    names = {row["method"] for row in read(out / "slices.csv")}
    assert names >= {
        "blind spot",
        "blind spot + centre",
        "supervised",
        "one step",
        "DDIM 5",
        "SRDS",
    }


def test_the_teacher_of_a_bundle_becomes_rows(images, tmp_path):
    bundle = shutil.copytree(DEFAULT_BUNDLES / "mr", tmp_path / "bundle")
    save_network(BlindSpotNetwork(0, width=8, blocks=1), bundle / BLIND_SPOT)
    save_network(DiffusionNetwork(DEFAULT, (8, 16)), bundle / DIFFUSION)
    plan = Plan(images, tmp_path / "out", bundle, noises=("gaussian 15",), crop=48)
    with Decoder() as decoder:
        evaluation = Evaluation(plan, decoder)
    rows = {method.name: method for method in evaluation.methods}
    assert rows.keys() >= {"blind spot", "blind spot + centre", "one step", "DDPM 20", "SRDS K 4"}
    assert rows["SRDS"].costly
    noisy = evaluation.series[0].slices
    estimate = rows["SRDS"].run(noisy, "mr", noise_case("gaussian 15").profile(noisy))
    assert estimate is not None
    assert estimate.denoised.slices.shape == noisy.shape


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["missing", "--out", "out"], 2, "folder-missing"),
        (["empty", "--out", "out"], 3, "no-training-images"),
    ],
)
def test_a_wrong_folder_has_an_exit_code_and_a_reason(tmp_path, arguments, code, reason):
    (tmp_path / "empty").mkdir()
    data, option, out = arguments
    done = run(tmp_path / data, option, tmp_path / out)
    assert done.exit_code == code, done.stderr
    assert reason in done.stderr


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        ({"noises": ("hum 3",)}, 2, "unknown-noise"),
        ({"methods": ("magic",)}, 2, "unknown-method"),
        ({"model": "empty"}, 6, "model-fault"),
        ({"compare": "missing"}, 6, "model-fault"),
        ({"controls": "missing"}, 2, "folder-missing"),
        ({"controls": "empty"}, 6, "model-fault"),
        ({"out": "file"}, 7, "output-not-writable"),
    ],
)
def test_what_cannot_be_measured_is_said_before_work(images, tmp_path, changes, code, reason):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    places = {key: tmp_path / name for key, name in changes.items() if isinstance(name, str)}
    plan = replace(Plan(images, tmp_path / "out", DEFAULT_BUNDLES), **(changes | places))
    with Decoder() as decoder, pytest.raises(StillscanError) as raised:
        Evaluation(plan, decoder)
    assert (raised.value.exit_code, raised.value.reason) == (code, reason)
    assert not (tmp_path / "out").exists()


def test_bm3d_is_asked_for_only_by_who_has_it(images, tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None if name == "bm3d" else True)
    plan = Plan(images, tmp_path / "out", DEFAULT_BUNDLES, noises=("gaussian 15",))
    with Decoder() as decoder:
        assert "BM3D (oracle noise)" not in {
            each.name for each in Evaluation(plan, decoder).methods
        }
        with pytest.raises(PackageMissingError, match="bm3d"):
            Evaluation(replace(plan, methods=("BM3D",)), decoder)
