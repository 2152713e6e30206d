"""What users of other tools reported, made small: each case of the shared data ends as is right."""

import json
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.app.pipeline.pipeline import Job, run
from stillscan.app.settings import load_settings
from stillscan.models.bundle import load_bundle
from stillscan.models.denoisers.denoiser import IdentityDenoiser
from stillscan.operators.denoising.denoise_series import plan_series
from stillscan.operators.errors import NoiseNotMeasuredError
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import find_series, read_series
from stillscan.operators.reading.selection import SelectionRules


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as running:
        yield running


@pytest.fixture
def case(stillscan_data):
    def folder(name: str) -> Path:
        found = stillscan_data / "field" / name
        if not found.is_dir():
            pytest.skip(f"the shared data holds no {name}")
        return found

    return folder


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("01-ge-adc-map", ["quantitative-map"]),
        ("02-ge-fa-map", ["quantitative-map"]),
        ("03-ge-b0-field-map", ["quantitative-map"]),
        ("04-philips-b0-map/r5", ["quantitative-map"]),
        ("04-philips-b0-map/r11", ["quantitative-map"]),
        ("05-kind-told-by-another-value/mrpet-umap", ["quantitative-map"]),
        ("05-kind-told-by-another-value/asl-ttest", ["quantitative-map"]),
        ("05-kind-told-by-another-value/ct-mip", ["reformatted"]),
        ("06-ct-rescale-type-no-hu/mgml", ["quantitative-map"]),
        ("06-ct-rescale-type-no-hu/z_eff", ["quantitative-map"]),
        ("21-ct-without-rescale/all-slices", ["missing-attribute"]),
    ],
)
def test_what_is_no_image_is_left_alone(name, reasons, case, decoder):
    found = find_series(case(name), decoder, SelectionRules())
    assert [each.reason for each in found.refused] == reasons
    assert not found.candidates


def derived(source: Path, out: Path) -> list[tuple[pydicom.Dataset, pydicom.Dataset]]:
    """Source and derived instances of a folder that the shipped settings derive."""
    outcomes = run(Job(source, out, load_settings())).outcomes
    assert {(each.status, each.reason) for each in outcomes} == {("derived", "")}
    sources = {each.SOPInstanceUID: each for each in map(pydicom.dcmread, source.glob("*.dcm"))}
    made = [pydicom.dcmread(path) for path in sorted(out.glob("2.25.*/*.dcm"))]
    return [(sources[each.SourceImageSequence[0].ReferencedSOPInstanceUID], each) for each in made]


@pytest.mark.parametrize("name", ["07-ct-air-at-lowest-value", "08-saturated-at-highest-value/mr"])
def test_what_the_scanner_had_clipped_stays_so(name, case, tmp_path):
    pairs = derived(case(name), tmp_path)
    assert len(pairs) == 3
    for source, made in pairs:
        before, after = source.pixel_array, made.pixel_array
        ends = (before == 0) | (before == 2**source.BitsStored - 1)
        assert ends.any()
        assert np.array_equal(before[ends], after[ends])
        assert (before != after).mean() > 0.2


@pytest.mark.parametrize(
    ("name", "noise", "sizes"),
    [
        ("two-sizes", (24, 24), [(128, 128), (112, 112)]),
        ("two-noise-levels", (12, 40), [(128, 128), (128, 128)]),
    ],
)
def test_films_of_one_series_stand_alone(name, noise, sizes, case, decoder):
    found = find_series(case("09-radiographs-of-one-series") / name, decoder, SelectionRules())
    volumes = [read_series(each, decoder) for each in found.candidates]
    assert [(each.rows, each.columns) for each in volumes] == sizes
    plans = [plan_series(each, IdentityDenoiser())[1] for each in volumes]
    assert [each.noise_before for each in plans] == pytest.approx(noise, rel=0.1)


@pytest.mark.parametrize(
    ("name", "noise"), [("two-sizes", (24, 24)), ("two-noise-levels", (12, 40))]
)
def test_each_film_loses_its_own_noise(name, noise, case, tmp_path):
    pairs = derived(case("09-radiographs-of-one-series") / name, tmp_path)
    taken = sorted(float((a.pixel_array.astype(float) - b.pixel_array).std()) for a, b in pairs)
    assert len(taken) == 2
    assert all(0.4 * sigma < each < 1.05 * sigma for each, sigma in zip(taken, noise, strict=True))


def test_bits_above_those_stored_are_cleared(case, tmp_path):
    source = case("16-unused-bits")
    pairs = derived(source, tmp_path)
    cells = [np.frombuffer(before.PixelData, "<u2") for before, _ in pairs]
    assert max(each.max() for each in cells) >= 2 ** pairs[0][0].BitsStored
    for (before, after), stored in zip(pairs, cells, strict=True):
        known = stored.reshape(before.Rows, -1) & (2**before.BitsStored - 1)
        assert np.abs(after.pixel_array.astype(float) - known).max() < 0.2 * known.max()
    (outcome,) = run(Job(source, tmp_path / "again", load_settings())).outcomes
    assert any("bits above BitsStored were set" in each for each in outcome.warnings)


def as_nifti(program: str, folder: Path, out: Path) -> dict[str, object]:
    """What dcm2niix reads of a folder: b values, directions, shape and place, times of slices."""
    out.mkdir()
    arguments = [program, "-b", "y", "-z", "n", "-f", "series", "-o", str(out), str(folder)]
    subprocess.run(arguments, capture_output=True, check=True, timeout=60)
    image = nibabel.load(out / "series.nii")
    sidecar = json.loads((out / "series.json").read_text(encoding="utf-8"))
    texts = {each.suffix: each.read_text() for each in out.glob("series.bv*")}
    place = {"shape": image.shape, "affine": image.affine.tolist()}
    return texts | place | {"SliceTiming": sidecar.get("SliceTiming")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "known"),
    [("11-ge-diffusion-directions", ".bvec"), ("12-siemens-mosaic", "SliceTiming")],
)
def test_what_makes_a_series_usable_is_kept(name, known, case, tool, tmp_path):
    program, source = tool("dcm2niix"), case(name)
    derived(source, tmp_path / "out")
    before = as_nifti(program, source, tmp_path / "before")
    after = as_nifti(program, tmp_path / "out", tmp_path / "after")
    assert before[known]
    assert after == before


def test_an_odd_image_is_listed_and_the_others_are_derived(case, tmp_path):
    source = case("17-one-odd-image-in-a-series/ct-scout")
    result = run(Job(source, tmp_path, load_settings()))
    (outcome,) = result.outcomes
    assert (outcome.status, outcome.slices) == ("derived", 4)
    assert [each.reason for each in result.skipped] == ["localizer"]
    assert len(list(tmp_path.glob("2.25.*/*.dcm"))) + len(result.skipped) == 5
    assert any("left out: 1 of 5 images (localizer)" in each for each in outcome.warnings)
    for path in tmp_path.glob("2.25.*/*.dcm"):
        assert "Left out: 1 of 5 images (localizer)." in pydicom.dcmread(path).DerivationDescription


def plan_of(folder: Path, decoder: Decoder):
    """The plan of the one series of a folder, as the application makes it."""
    (candidate,) = find_series(folder, decoder, SelectionRules()).candidates
    denoiser = load_bundle(DEFAULT_BUNDLES / "mr").denoiser
    return plan_series(read_series(candidate, decoder), denoiser)


def test_noise_of_a_small_series_is_measured(case, decoder):
    """Case 13: two slices of 64 x 64, noise of 20."""
    _, plan = plan_of(case("13-noise-not-measured"), decoder)
    assert plan.noise_before == pytest.approx(20, rel=0.1)
    assert plan.noise.certainty == "confirmed"


def test_each_slice_of_an_uneven_series_has_its_own_noise(case, tmp_path):
    """Case 15: six slices of noise 8, six of 40."""
    taken = []
    for before, after in derived(case("15-two-noise-levels"), tmp_path / "out"):
        change = before.pixel_array.astype(float) - after.pixel_array
        taken.append(float(change.std()))
    taken.sort()
    assert all(4 < each < 8.4 for each in taken[:6])
    assert all(25 < each < 42 for each in taken[6:])


def test_fine_structure_everywhere_is_not_taken_for_noise(case, decoder):
    """Case 20: discs of 1.2 to 4 px, noise of 20; once 54 to 73 were taken away."""
    with pytest.raises(NoiseNotMeasuredError):
        plan_of(case("20-fine-structure-taken-for-noise"), decoder)


def test_masked_background_stays_exactly_zero(case, tmp_path):
    """Case 14."""
    for before, after in derived(case("14-masked-background"), tmp_path / "out"):
        assert (after.pixel_array[before.pixel_array == 0] == 0).all()


def test_corrected_copies_beside_the_first_ones_are_named(case, decoder):
    (refusal,) = find_series(
        case("10-gateway-corrected-patient"), decoder, SelectionRules()
    ).refused
    assert refusal.reason == "identity-conflict"
    assert "instances are there twice: keep the corrected copies only" in refusal.message
