"""Anomaly bundles from training to DICOM objects, on made images of round heads."""

import csv
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from stillscan.app import cli
from stillscan.app.bundles.release import ReleaseRefusedError
from stillscan.app.datasets.anomaly_images import (
    AnomalyImages,
    LabelsFollowScannerError,
    look_alike_groups,
    require_labels_apart_from_scanners,
    split,
)
from stillscan.app.training.anomaly.command import AnomalyRequest, train_anomaly_bundle
from stillscan.app.training.anomaly.run import AnomalyProfile, AnomalyRun
from stillscan.models.anomaly.bundle import load_anomaly_bundle
from stillscan.models.bundle import OtherTaskError, load_bundle
from stillscan.models.metrics.segmentation import (
    auroc,
    average_precision,
    best_dice,
    lesion_sensitivity,
    regions,
)
from stillscan.models.training.stages import StagePlan
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.selection import SelectionRules
from tests.series_factory import make_series

SHORT = StagePlan(6, batch=4)
TINY = AnomalyProfile(
    *[SHORT] * 5,
    widths=(8, 8, 8),
    prior_widths=(8, 8),
    denoiser_widths=(8, 8),
    checkpoint_every=2,
)


def heads(count: int, seed: int = 0) -> np.ndarray:
    """Round heads of several sizes, 0 .. 200, with noise."""
    chance = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    size = chance.uniform(0.6, 0.9, (count, 1, 1))
    inside = 1 / (1 + np.exp(20 * (np.hypot(y, x * 1.2) / size - 1)))
    return (200 * inside + chance.normal(0, 4, (count, 32, 32))).clip(0).astype(np.float32)


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a training of a few steps, which its release check refuses."""
    folder = tmp_path_factory.mktemp("anomaly")
    subjects = np.repeat(np.arange(30), 4)
    label = np.arange(120) // 4 % 3 == 0
    images = heads(120)
    images[label, 12:20, 12:20] *= 0.2
    (folder / "data").mkdir()
    np.savez(folder / "data/heads.npz", image=images, subject=subjects, label=label)
    request = AnomalyRequest(
        folder / "data", folder / "out", "quick", TINY, SelectionRules(), ("CT",), device="cpu"
    )
    with (
        Decoder() as decoder,
        pytest.raises(ReleaseRefusedError, match=r"is not shown to be better than .*neighbours"),
    ):
        train_anomaly_bundle(request, decoder, Console(quiet=True))
    assert not (folder / "out/configs").exists()
    return folder / "out/.training/refused"


def test_refused_bundle_holds_its_table_and_is_for_anomaly_maps_alone(refused: Path) -> None:
    bundle = load_anomaly_bundle(refused)
    assert not bundle.settings["release"]["released"]
    rows = {each["row"] for each in bundle.settings["figures"]}
    assert {"intensity", "5 nearest neighbours", "KL", "one step x KL"} <= rows
    assert "Figures on held-out subjects" in (refused / "docs/README.md").read_text("utf-8")
    with pytest.raises(OtherTaskError):
        load_bundle(refused)


def test_denoiser_is_not_taken_for_an_anomaly_model(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "models/bundles/ct"
    with pytest.raises(OtherTaskError):
        load_anomaly_bundle(shipped)


def test_series_is_mapped_and_another_kind_is_refused(refused: Path, tmp_path: Path) -> None:
    """The map of a series like the training images is written; of bright noise nothing is."""

    def series(name: str, pixels: np.ndarray, seed: int) -> Path:
        files = make_series(
            tmp_path / name,
            modality="CT",
            slices=6,
            rows=32,
            columns=32,
            seed=seed,
            intercept=0.0,
            PixelSpacing=[1.0, 1.0],
        )
        for file, values in zip(files, pixels, strict=True):
            dataset = pydicom.dcmread(file)
            dataset.PixelData = values.astype(np.uint16).tobytes()
            dataset.save_as(file)
        return tmp_path / name

    bundle = ["--models", str(refused)]
    alike = series("alike", heads(6, seed=5), 1)
    done = CliRunner().invoke(cli.app, ["anomaly", str(alike), str(tmp_path / "out"), *bundle])
    assert done.exit_code == 0, done.output
    kinds = {pydicom.dcmread(file).Modality for file in (tmp_path / "out").rglob("*.dcm")}
    assert {"OT", "SR"} <= kinds or {"CT", "SR"} <= kinds, kinds
    assert len(list((tmp_path / "out/report").glob("2.25.*.html"))) == 1

    chance = np.random.default_rng(0)
    other = series("other", chance.uniform(0, 600, (6, 32, 32)), 2)
    done = CliRunner().invoke(cli.app, ["anomaly", str(other), str(tmp_path / "none"), *bundle])
    assert done.exit_code == 4
    assert not list((tmp_path / "none").rglob("*.dcm"))


def test_evaluation_with_masks_shows_every_row(refused: Path, tmp_path: Path) -> None:
    images, masks = heads(12, seed=3), np.zeros((12, 32, 32), np.uint8)
    masks[:9, 8:14, 10:16] = 1
    images[masks == 1] = 250
    for name, array in (("data", images), ("masks", masks), ("healthy", heads(40, seed=4))):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "heads.npz", image=array, subject=np.arange(len(array)))
    places = {"--models": refused, "--masks": tmp_path / "masks", "--healthy": tmp_path / "healthy"}
    options = [str(each) for pair in places.items() for each in pair]
    command = ["evaluate", str(tmp_path / "data"), "--task", "anomaly", *options]
    done = CliRunner().invoke(cli.app, [*command, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    with (tmp_path / "out/anomaly.csv").open() as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    # a bright box is found by every method that knows how bright heads are
    assert float(rows["intensity"]["average_precision"]) > 0.9
    assert float(rows["PCA 64"]["average_precision"]) > 0.5
    assert {"KL", "healed residual", "one step x KL, reconstruction"} <= rows.keys()
    assert "12 images of 12 subjects" in (tmp_path / "out/anomaly.md").read_text("utf-8")


def test_killed_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    images = torch.from_numpy(heads(24))[:, None] / 200
    made = AnomalyImages(images, tuple(map(str, range(24))), np.arange(24) % 2 == 0, ("",) * 24)

    def run(name: str) -> AnomalyRun:
        return AnomalyRun(tmp_path / name, TINY, made, True, 3, torch.device("cpu"))

    def weights(of: AnomalyRun) -> dict[str, torch.Tensor]:
        stages = of.train()
        while True:
            try:
                next(stages)
            except StopIteration as end:
                return {
                    f"{n}.{k}": t for n, x in end.value.items() for k, t in x.state_dict().items()
                }

    whole = weights(run("whole"))
    for steps in (5, 11, 16):  # killed three times, between checkpoints
        list(islice(run("killed").train(), steps))
    again = weights(run("killed"))
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_labels_that_follow_the_scanner_are_refused() -> None:
    images = torch.zeros(40, 1, 32, 32)
    label = np.arange(40) % 2 == 0
    subjects = tuple(map(str, range(40)))
    follows = AnomalyImages(images, subjects, label, tuple("AB"[i] for i in label.astype(int)))
    with pytest.raises(LabelsFollowScannerError, match=r"AUROC of 1\.00"):
        require_labels_apart_from_scanners(follows)
    require_labels_apart_from_scanners(replace(follows, scanners=("A", "A", "B", "B") * 10))


def test_subjects_and_look_alikes_stay_on_one_side() -> None:
    base = torch.from_numpy(heads(20, seed=1))[:, None] / 200
    groups = look_alike_groups(torch.cat([base, base + 0.001]))
    assert (groups[:20] == groups[20:]).all()
    subjects = tuple(str(i // 5) for i in range(100))
    images = AnomalyImages(torch.rand(100, 1, 32, 32), subjects, np.zeros(100, bool), ("",) * 100)
    parts = [set(part.subjects) for part in split(images, 0)]
    assert set.union(*parts) == set(subjects)
    assert sum(map(len, parts)) == 20
    assert all(len(part) >= 2 for part in parts)


def test_figures_agree_with_their_definitions() -> None:
    from scipy.ndimage import label

    chance = np.random.default_rng(0)
    truth = chance.random(2000) < 0.1
    scores = (chance.random(2000) + 0.5 * truth).round(2).astype(np.float32)
    levels = np.unique(scores)[::-1]
    found = np.array([[(truth & (scores >= t)).sum(), (scores >= t).sum()] for t in levels])
    steps = np.diff(found[:, 0], prepend=0) / truth.sum()
    area = float((steps * found[:, 0] / found[:, 1]).sum())
    assert average_precision(scores, truth) == pytest.approx(area)
    pairs = np.sign(scores[truth][:, None] - scores[~truth][None])
    assert auroc(scores[~truth], scores[truth]) == pytest.approx((pairs.mean() + 1) / 2)
    dices = 2 * found[:, 0] / (truth.sum() + found[:, 1])
    assert best_dice(scores, truth) == pytest.approx(dices.max())
    marked = chance.random((6, 20, 20)) < 0.3
    numbers, expected = regions(marked), label(marked)[0]
    assert len(np.unique(numbers * 10**6 + expected)) == numbers.max() + 1 == expected.max() + 1
    volume = np.zeros((4, 20, 20), np.float32)
    lesions = np.zeros(volume.shape, bool)
    lesions[1, 3:5, 3:5] = lesions[2, 10:12, 10:12] = True
    volume[lesions] = 2
    volume[0, 15, 15] = 3
    assert lesion_sensitivity(volume, lesions, 1) == 1.0
    assert lesion_sensitivity(volume, lesions, 0) == 0.0
