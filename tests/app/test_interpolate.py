"""Cine: acquired frames keep their pixels, made ones lie between them and say so; `--temporal`."""

import math
import shutil
from itertools import pairwise

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from stillscan.app.cli import app
from stillscan.app.settings import DEFAULT_SETTINGS
from tests.enhanced_factory import make_enhanced
from tests.operators.test_cine import attach_delays
from tests.operators.test_validators import errors_of
from tests.series_factory import make_series

PLACES, PHASES, SIDE = 2, 6, 64
STEP = 150.0


def heart(phase, place):
    """A bright disc in a ring whose radius follows the beat."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    radius = np.hypot(y, x - place) * (1 + 0.25 * math.sin(2 * math.pi * phase / PHASES))
    blood, wall = (1 / (1 + np.exp(radius - edge)) for edge in (12, 18))
    return 300 + 1200 * blood + 500 * wall


@pytest.fixture(scope="module")
def make_cine(tmp_path_factory):
    """`make_cine()`: the folder of a cine of two places and six phases, with little noise."""

    def make(only=lambda place, phase: True, shown=heart, noise=15, **attributes):
        folder = tmp_path_factory.mktemp("cine")
        files = make_series(
            folder,
            slices=PLACES * PHASES,
            rows=len(shown(0, 0)),
            columns=len(shown(0, 0)),
            ImagePositionPatient=lambda index: ["0", "0", str(index // PHASES * 10)],
            **{
                "TriggerTime": lambda index: str(STEP * (index % PHASES)),
                "NominalInterval": "900",
                "CardiacNumberOfImages": str(PHASES),
            }
            | attributes,
        )
        rng = np.random.default_rng(0)
        for index, file in enumerate(files):
            place, phase = divmod(index, PHASES)
            dataset = pydicom.dcmread(file)
            clean = shown(phase, place)
            noisy = clean + noise * rng.standard_normal(clean.shape)
            dataset.PixelData = np.clip(np.rint(noisy), 0, 4095).astype(np.uint16).tobytes()
            dataset.save_as(file)
            if not only(place, phase):
                file.unlink()
        return folder

    return make


def run(source, out, *options):
    result = CliRunner().invoke(app, ["interpolate", str(source), str(out), *options])
    return result.exit_code, result.output


def images(folder):
    """Data sets by place, in the order of InstanceNumber."""
    found = sorted(map(pydicom.dcmread, folder.rglob("*.dcm")), key=lambda d: d.InstanceNumber)
    places = sorted({d.ImagePositionPatient[2] for d in found})
    return [[d for d in found if d.ImagePositionPatient[2] == each] for each in places]


@pytest.fixture(scope="module")
def doubled(make_cine, tmp_path_factory):
    source, out = make_cine(), tmp_path_factory.mktemp("out")
    code, output = run(source, out, "--factor", "2")
    assert code == 0, output
    return images(source), images(out), source, out


def test_acquired_frames_keep_their_pixels(doubled):
    sources, made, _, _ = doubled
    for of_place, result in zip(sources, made, strict=True):
        for source, derived in zip(of_place, result[::2], strict=True):
            assert derived.PixelData == source.PixelData
            assert derived.SOPInstanceUID != source.SOPInstanceUID
            assert derived.TriggerTime == source.TriggerTime
            assert "SyntheticData" not in derived
            assert derived.DerivationDescription.startswith("Acquired frame, unchanged. ")
            (item,) = derived.SourceImageSequence
            assert item.ReferencedSOPInstanceUID == source.SOPInstanceUID


def test_made_frames_say_what_they_are(doubled):
    sources, made, _, _ = doubled
    for of_place, result in zip(sources, made, strict=True):
        for number, derived in enumerate(result[1::2]):
            pair = of_place[number], of_place[(number + 1) % PHASES]
            assert derived.SyntheticData == "YES"
            assert list(derived.ImageType[:2]) == ["DERIVED", "SECONDARY"]
            named = [each.ReferencedSOPInstanceUID for each in derived.SourceImageSequence]
            assert named == [each.SOPInstanceUID for each in pair]
            purposes = [
                each.PurposeOfReferenceCodeSequence[0].CodeValue
                for each in derived.SourceImageSequence
            ]
            assert purposes == ["121322"] * 2
            first, second = derived.DerivationCodeSequence
            assert first.LongCodeValue == "TEMPORAL_INTERPOLATION"
            assert second.CodeValue == "125027"
            text = f"Made frame, between phases {number + 1} and {(number + 1) % PHASES + 1} at 0.5"
            assert derived.DerivationDescription.startswith(text)
            assert derived.TriggerTime == STEP * (number + 0.5)
            assert derived.NominalInterval == pair[0].NominalInterval
            assert derived.ContentTime == pair[0].ContentTime


def test_trigger_times_rise_and_places_have_equally_many_phases(doubled):
    _, made, _, out = doubled
    everything = [each for place in made for each in place]
    assert [each.InstanceNumber for each in everything] == list(range(1, 2 * PLACES * PHASES + 1))
    assert len({each.SOPInstanceUID for each in everything}) == len(everything)
    assert {each.SeriesDescription for each in everything} == {everything[0].SeriesDescription}
    assert everything[0].SeriesDescription.endswith(" (phases interpolated, read with original)")
    for place in made:
        assert len(place) == 2 * PHASES
        assert all(a.TriggerTime < b.TriggerTime for a, b in pairwise(place))
        positions = [each.TemporalPositionIdentifier for each in place]
        assert positions == list(range(1, 2 * PHASES + 1))
        assert {each.CardiacNumberOfImages for each in place} == {2 * PHASES}
        assert {each.NumberOfTemporalPositions for each in place} == {2 * PHASES}
    (page,) = (out / "report").glob("2.25.*.html")
    assert page.read_text().count("data:image/png") >= 4 * PHASES


def test_made_frames_lie_between_their_neighbours(doubled):
    """Nearer to the true phase between than the mean of the neighbours, in the heart."""
    _, made, _, _ = doubled
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    region = np.hypot(y, x) < 22
    errors = {"made": [], "mean": []}
    for place, result in enumerate(made):
        for number in range(PHASES - 1):
            true = heart(number + 0.5, place)
            a, m, b = (result[2 * number + each].pixel_array.astype(float) for each in range(3))
            errors["made"].append(np.square(m - true)[region].mean())
            errors["mean"].append(np.square((a + b) / 2 - true)[region].mean())
    assert 10 * np.log10(np.mean(errors["mean"]) / np.mean(errors["made"])) > 1.2


def test_derived_cine_has_no_new_errors(doubled, tool):
    *_, source, out = doubled
    sources, derived = list(source.glob("*.dcm")), list(out.rglob("*.dcm"))
    assert errors_of(tool("dciodvfy"), derived) == errors_of(tool("dciodvfy"), sources)
    assert errors_of(tool("dcentvfy"), [*sources, *derived]) == {}


def test_twice_is_refused_whatever_the_settings(doubled, tmp_path):
    *_, out = doubled
    assert run(out, tmp_path / "again", "--factor", "2")[0] == 3
    settings = tmp_path / "app.yaml"
    shipped = DEFAULT_SETTINGS.read_text()
    settings.write_text(shipped.replace("denoised: refuse", "denoised: process"))
    result = CliRunner().invoke(
        app, ["denoise", str(out), str(tmp_path / "denoised"), "--config", str(settings)]
    )
    assert result.exit_code == 3
    assert not list(tmp_path.rglob("*.dcm"))


def test_a_number_of_phases_may_be_chosen(make_cine, tmp_path):
    source = make_cine()
    assert run(source, tmp_path / "out", "--frames", "9")[0] == 0
    assert [len(each) for each in images(tmp_path / "out")] == [9, 9]
    code, output = run(source, tmp_path / "fewer", "--frames", "6")
    assert code == 4
    assert "phases-already-there" in output


def test_a_cine_with_enough_phases_does_not_stop_another(make_cine, tmp_path):
    shutil.copytree(make_cine(), tmp_path / "in/six")
    shutil.copytree(make_cine(lambda place, phase: phase < 5, seed=1), tmp_path / "in/five")
    code, output = run(tmp_path / "in", tmp_path / "out", "--frames", "6")
    assert code == 5
    assert "phases-already-there" in output
    assert [len(each) for each in images(tmp_path / "out")] == [6, 6]


def test_missing_and_rejected_phases_are_filled(make_cine, tmp_path):
    source = make_cine(
        only=lambda place, phase: (place, phase) != (0, 2),
        BeatRejectionFlag=lambda index: "Y" if index == PHASES + 4 else "N",
    )
    assert run(source, tmp_path / "out", "--fill")[0] == 0
    first, second = images(tmp_path / "out")
    for place, number in ((first, 2), (second, 4)):
        assert ["SyntheticData" in each for each in place] == [n == number for n in range(PHASES)]
        assert [each.TriggerTime for each in place] == [STEP * each for each in range(PHASES)]
        assert place[number].BeatRejectionFlag == "N"
    code, output = run(make_cine(), tmp_path / "none", "--fill")
    assert code == 4
    assert "nothing-to-fill" in output


def test_motion_that_is_not_explained_makes_no_series(make_cine, tmp_path):
    """Contrast flows in between two phases: no frame between them may be shown."""

    def shown(phase, place):
        y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
        stripes = 600 * (np.sin(x * (1 + phase)) * np.sin(y * (1 + phase)) > 0)
        return heart(phase, place) + stripes * (phase % 2)

    code, output = run(make_cine(shown=shown), tmp_path / "out", "--factor", "2")
    assert code == 4
    assert "motion-not-explained" in output
    assert not list(tmp_path.rglob("*.dcm"))


def test_multi_frame_cines_and_stacks_are_refused(tmp_path):
    (file,) = make_enhanced(tmp_path / "multi", modality="MR", frames=PHASES, order=[0] * PHASES)
    attach_delays(file)
    code, output = run(tmp_path / "multi", tmp_path / "out", "--factor", "2")
    assert (code, "cine-multi-frame-not-supported" in output) == (4, True)
    make_series(tmp_path / "stack")
    code, output = run(tmp_path / "stack", tmp_path / "out", "--factor", "2")
    assert (code, "not-a-cine" in output) == (3, True)
    assert run(tmp_path / "stack", tmp_path / "out", "--factor", "2", "--fill")[0] == 2


def test_the_same_cine_gives_the_same_series(doubled, tmp_path):
    *_, source, out = doubled
    assert run(source, tmp_path / "again", "--factor", "2")[0] == 0
    first = {file.name: file.read_bytes() for file in out.rglob("*.dcm")}
    assert {file.name: file.read_bytes() for file in tmp_path.rglob("*.dcm")} == first


def beating(phase, place):
    """A larger heart, and a bright mark in one phase."""
    y, x = np.mgrid[:128, :128] - 63.5
    radius = np.hypot(y, x - place) * (1 + 0.06 * math.sin(2 * math.pi * phase / PHASES))
    blood, wall = (1 / (1 + np.exp((radius - edge) / 3)) for edge in (24, 36))
    mark = 700 * (np.hypot(y - 44, x - 44) < 4) * (phase == MARKED)
    return 300 + 700 * blood + 500 * wall + 60 * np.sin(radius) + mark


MARKED = 3


@pytest.mark.parametrize("timed", [True, False])
def test_a_cine_is_denoised_along_its_motion_only_with_trigger_times(make_cine, tmp_path, timed):
    """The phases gain from their neighbours, and what one phase alone shows is kept."""
    without = {} if timed else {"TriggerTime": ""}
    source = make_cine(shown=beating, noise=60, **without)
    errors = {}
    for name, options in {"alone": [], "along": ["--temporal"]}.items():
        out = tmp_path / name
        result = CliRunner().invoke(app, ["denoise", str(source), str(out), *options])
        assert result.exit_code in (0, 1), result.output
        derived = {
            each.SourceImageSequence[0].ReferencedSOPInstanceUID: each
            for each in map(pydicom.dcmread, out.rglob("*.dcm"))
        }
        errors[name] = np.stack(
            [
                derived[each.SOPInstanceUID].pixel_array - beating(index % PHASES, index // PHASES)
                for index, each in enumerate(map(pydicom.dcmread, sorted(source.glob("*"))))
            ]
        )
        said = derived.popitem()[1].ContributingEquipmentSequence[-1].ContributionDescription
        assert ("averaged along the motion" in said) == (timed and name == "along")
    if not timed:
        assert np.array_equal(errors["alone"], errors["along"])
        return
    error = {name: float(np.sqrt(np.square(each).mean())) for name, each in errors.items()}
    assert error["along"] < 0.9 * error["alone"], error
    mark = errors["along"][MARKED::PHASES, 106:110, 106:110]
    assert abs(mark.mean()) < 60, mark
