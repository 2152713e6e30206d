"""Fine-tuning a bundle on a site's noisy series, and whether what came of it is released."""

import json
import math
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
import torch
from rich.console import Console

from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.app.bundles.release import ReleaseRefusedError
from stillscan.app.datasets.errors import EverySeriesRefusedError, RepeatDiffersError
from stillscan.app.datasets.noisy_folder import find_sources
from stillscan.app.datasets.noisy_series import read_noisy_series
from stillscan.app.monai_bundle.checks import faults_of
from stillscan.app.training.errors import NothingToAdaptError
from stillscan.app.training.profiles import ADAPT
from stillscan.app.training.release import MARGIN_DB, Row, decide, own_repeats
from stillscan.models.bundle import METADATA, WEIGHTS, find_bundles, load_bundle, load_teacher
from stillscan.models.training.stages import StagePlan
from stillscan.operators.errors import ExitCode, SettingsError
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.selection import SelectionRules
from tests.app.training.tiny_training import noisy_stack, request_for, train_tiny
from tests.series_factory import make_series

MR = DEFAULT_BUNDLES / "mr"


def brief(steps, learning_rate, batch=4):
    """The profile `adapt`, shortened."""
    plan = StagePlan(steps, batch=batch, learning_rate=learning_rate)
    return replace(ADAPT, student=plan, judged=16, checkpoint_every=steps)


@pytest.fixture(scope="module")
def site(tmp_path_factory, stillscan_data):
    """A site's diffusion scan: three slices to learn from; two others, scanned twice."""
    folder = tmp_path_factory.mktemp("site")
    with np.load(stillscan_data / "dev/arrays/repeat_dwi_siemens_trio.npz") as arrays:
        weighted = arrays["data"][:, 1:].astype(np.float32).transpose(0, 2, 1, 3, 4)
    for part, scan, slices in (
        ("data", 0, slice(0, 3)),
        ("other/first", 0, slice(3, 5)),
        ("other/second", 1, slice(3, 5)),
    ):
        (folder / part).mkdir(parents=True)
        directions = slice(None) if part == "data" else slice(None, None, 4)
        images = weighted[scan, slices, directions].reshape(-1, *weighted.shape[-2:])
        np.savez(folder / part / "dwi.npz", images)
    return folder


@pytest.fixture(scope="module")
def adapted(site, tmp_path_factory):
    """A short fine-tune of the shipped bundle, and what it said."""
    out = tmp_path_factory.mktemp("adapted") / "site"
    said = StringIO()
    request = request_for(
        site / "data",
        out,
        profile_name="adapt",
        profile=brief(40, 1e-4, batch=8),
        modalities=(),
        start=MR,
        evaluation=site / "other",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stillscan.app.training.release.PROCEDURAL", 3)
        assert train_tiny(request, Console(file=said, width=200)) == ExitCode.DERIVED
    return out, said.getvalue()


def own_error_db(bundle, repeats):
    """Error against the independent repeat beyond its noise, over that noise: the check by hand."""
    (pair,) = repeats
    with Decoder() as decoder:
        (source,), _, _ = find_sources(pair / "first", decoder, SelectionRules(), "MR")
        (other,), _, _ = find_sources(pair / "second", decoder, SelectionRules(), "MR")
        series = read_noisy_series(source)
        raw = [pixels for pixels, _ in source.read(range(len(source.sizes)))]
        repeat = [pixels for pixels, _ in other.read(range(len(other.sizes)))]
    unit = float(series.images[0].pixels.max()) / float(raw[0].max())
    denoiser = load_bundle(bundle, precision="float32").denoiser
    errors, noises = [], []
    for image, second in zip(series.images, repeat, strict=True):
        clean = denoiser.denoise(image.pixels[None, None], series.profile).mean[0, 0]
        target = torch.from_numpy(second) * unit
        noise = float((image.pixels - target).square().mean()) / 2
        errors.append(float((clean - target).square().mean()) - noise)
        noises.append(noise)
    return 10 * math.log10(sum(errors) / sum(noises))


@pytest.mark.slow
@pytest.mark.data
def test_adapting_lowers_the_error_on_other_slices_against_the_independent_repeat(adapted, site):
    out, _ = adapted
    after, before = (own_error_db(bundle, [site / "other"]) for bundle in (out, MR))
    assert after < before
    release = json.loads((out / METADATA).read_text())["stillscan"]["release"]
    assert release["released"]
    (row,) = [each for each in release["table"] if each["measure"].startswith("independent")]
    assert row["verdict"] == "better"
    assert row["images"] == 10


@pytest.mark.slow
@pytest.mark.data
def test_a_released_bundle_says_why_and_is_whole(adapted):
    out, said = adapted
    assert list(faults_of(out)) == []
    metadata = json.loads((out / METADATA).read_text())
    release = metadata["stillscan"]["release"]
    assert release["from"]["name"] == "mr"
    assert release["from"]["sha256"] == load_bundle(MR).sha256
    assert release["reasons"][0].startswith("no row is worse")
    measures = [row["measure"] for row in release["table"]]
    assert "held-out images of the site, recorrupted pairs" in measures
    assert "simulated noise: gaussian 15" in measures
    for row in release["table"]:
        assert f"{row['measure']}: {row['better_db']:+.2f} dB" in said
    assert (
        "## Performance\n\nReleased. Compared with its origin, mr"
        in (out / "docs" / "README.md").read_text()
    )
    theirs = json.loads((MR / METADATA).read_text())
    assert metadata["version"] not in theirs["changelog"]
    assert theirs["changelog"].items() <= metadata["changelog"].items()
    assert metadata["stillscan"]["modalities"] == theirs["stillscan"]["modalities"]


@pytest.mark.slow
@pytest.mark.data
def test_a_fine_tuned_bundle_keeps_the_teacher(adapted):
    out, _ = adapted
    for kept, came in zip(load_teacher(out)[:2], load_teacher(MR)[:2], strict=True):
        for name, value in came.state_dict().items():
            torch.testing.assert_close(kept.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.data
def test_a_spoilt_fine_tune_is_refused_and_kept_apart(site, tmp_path, monkeypatch):
    monkeypatch.setattr("stillscan.app.training.release.PROCEDURAL", 3)
    request = request_for(
        site / "data",
        tmp_path / "site",
        profile=replace(brief(12, 3.0), judged=4),  # an absurd learning rate
        modalities=(),
        start=MR,
    )
    with pytest.raises(ReleaseRefusedError, match="simulated noise: gaussian 15: worse") as refused:
        train_tiny(request)
    assert refused.value.exit_code == ExitCode.PARTLY_DERIVED
    assert refused.value.reason == "release-refused"
    assert not (tmp_path / "site" / METADATA).exists()
    assert not (tmp_path / "site" / WEIGHTS).exists()
    assert find_bundles(tmp_path) == []
    assert find_bundles(tmp_path / "site") == []
    aside = tmp_path / "site" / ".training" / "refused"
    release = json.loads((aside / METADATA).read_text())["stillscan"]["release"]
    assert not release["released"]
    assert any("worse" in reason for reason in release["reasons"])
    assert "NOT released" in (aside / "docs" / "README.md").read_text()


def row(better, low, high):
    return Row("noise", 9, better, (low, high))


@pytest.mark.parametrize(
    ("rows", "released", "reason"),
    [
        ([row(0.3, 0.1, 0.5), row(0.0, -0.05, 0.05)], True, "no row is worse"),
        ([row(0.3, 0.1, 0.5), row(-0.5, -0.7, -0.2)], False, "worse, -0.50 dB"),
        ([row(0.3, 0.1, 0.5), row(0.1, -0.4, 0.6)], False, "not shown to be within"),
        ([row(0.0, -0.05, 0.05)], False, "nothing gained"),
        ([row(0.3, 0.1, 0.5), row(math.nan, math.nan, math.nan)], False, "not a number"),
    ],
    ids=["better", "worse", "not shown", "the same", "broken"],
)
def test_released_is_what_is_nowhere_worse_and_somewhere_better(rows, released, reason):
    found = decide(rows)
    assert found.released == released
    assert any(reason in each for each in found.reasons)


def test_the_margin_is_what_no_worse_means():
    assert row(-0.05, -MARGIN_DB, 0.0).verdict == "no worse"
    assert row(-0.05, -1.01 * MARGIN_DB, 0.01).verdict == "not shown"


def test_fine_tuning_needs_a_bundle_and_a_folder_that_is_there(tmp_path):
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "a.npz", noisy_stack(5))
    request = request_for(tmp_path / "data", tmp_path / "out", profile=brief(1, 1e-4))
    with pytest.raises(NothingToAdaptError, match="--from"):
        train_tiny(request)
    with pytest.raises(SettingsError, match="is not a folder"):
        train_tiny(replace(request, start=MR, evaluation=tmp_path / "nowhere"))
    assert not (tmp_path / "out").exists()


def test_a_bundle_is_not_fine_tuned_on_another_modality(tmp_path):
    make_series(tmp_path / "data", modality="CT", rows=128, columns=128)
    request = request_for(
        tmp_path / "data", tmp_path / "out", profile=brief(1, 1e-4), modalities=(), start=MR
    )
    with pytest.raises(EverySeriesRefusedError, match="modality"):
        train_tiny(request)


def test_a_repeated_scan_is_the_same_series_twice(tmp_path):
    for part, slices in (("first", 3), ("second", 2)):
        (tmp_path / part).mkdir()
        np.savez(tmp_path / part / "a.npz", noisy_stack(slices, 64))
    with Decoder() as decoder:
        with pytest.raises(RepeatDiffersError, match="differ in slices"):
            list(own_repeats(tmp_path, decoder))
        np.savez(tmp_path / "second" / "a.npz", noisy_stack(3, 64, seed=1))
        (repeat,) = own_repeats(tmp_path, decoder)
    assert repeat.first.shape == repeat.second.shape == (3, 64, 64)
