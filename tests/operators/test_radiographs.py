"""Radiographs of one series stand alone: each its own matrix, noise, verdict and report entry."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pydicom
import pytest

from stillscan.app.pipeline.in_turn import derive_all
from stillscan.app.pipeline.pipeline import Job, run
from stillscan.app.settings import OutputSection, load_settings
from stillscan.models.denoisers.denoiser import Estimate, IdentityDenoiser
from stillscan.operators.graph.messages import Method, SeriesSource
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import find_series, read_series
from stillscan.operators.reading.selection import SelectionRules
from stillscan.operators.report.result import not_derived, result_of_series
from stillscan.operators.writing.companions.companions import ObjectOptions
from stillscan.operators.writing.provenance import Provenance
from tests.derived import STUDENT, derive_volume, smoothed, volumes_in
from tests.series_factory import make_series

METHOD = Method(
    IdentityDenoiser(), Provenance("0", "none", "none", "identity", 1.0, "none", "float32", "cpu")
)


@pytest.fixture
def decoder():
    with Decoder() as running:
        yield running


def films(folder, modality="CR", sizes=((96, 80), (64, 112)), **attributes):
    """Films of one series, of these sizes; their SOPInstanceUIDs."""
    uids = []
    for number, (rows, columns) in enumerate(sizes, start=1):
        options = {"rows": rows, "columns": columns, "slices": 1, "seed": 7}
        (made,) = make_series(folder / "new", modality=modality, **options, **attributes)
        film = pydicom.dcmread(made)
        film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        film.InstanceNumber = number
        film.save_as(folder / f"{number}.dcm")
        made.unlink()
        uids.append(film.SOPInstanceUID)
    return uids


def derive(folder, staging, decoder, denoiser=None, **options):
    found = find_series(folder, decoder, SelectionRules())
    sources = [
        SeriesSource(
            each.series_instance_uid,
            tuple(one.path for one in each.instances),
            partial(read_series, each, decoder),
            each.sop_instance_uid,
        )
        for each in found.candidates
    ]
    staging.mkdir()
    method = METHOD if denoiser is None else Method(denoiser, METHOD.provenance)
    output = OutputSection(report=True, objects=ObjectOptions(measurements=True))
    methods = {each.modality: method for each in found.candidates}
    return derive_all(sources, methods, staging, output, lambda _: None)


@pytest.mark.parametrize("modality", ["CR", "DX"])
def test_every_film_is_derived_by_itself_into_one_series(modality, tmp_path, decoder):
    uids = films(tmp_path / "in", modality)
    outcomes = derive(tmp_path / "in", tmp_path / "out", decoder)
    assert [(each.status, each.slices, each.sop_instance_uid) for each in outcomes] == [
        ("derived", 1, uid) for uid in uids
    ]
    (folder,) = {each.derived.folder for each in outcomes}
    made = [
        pydicom.dcmread(folder / f"{each.derived.sop_instance_uids[0]}.dcm") for each in outcomes
    ]
    assert len(list(folder.iterdir())) == 2
    assert [(each.Rows, each.Columns) for each in made] == [(96, 80), (64, 112)]
    assert [each.SourceImageSequence[0].ReferencedSOPInstanceUID for each in made] == uids
    for keyword in ("SeriesInstanceUID", "SeriesNumber", "SeriesDescription"):
        assert len({str(each[keyword].value) for each in made}) == 1
    for each in outcomes:
        assert (tmp_path / "out" / "report" / f"{each.page}.html").is_file()
    reports = {each.series_instance_uid for one in outcomes for each in one.objects}
    assert len(reports) == 2


def test_each_film_has_its_own_noise(tmp_path, decoder):
    films(tmp_path / "in", sizes=((128, 128), (128, 128)))
    for number, sigma in ((1, 10.0), (2, 60.0)):
        path = tmp_path / "in" / f"{number}.dcm"
        film = pydicom.dcmread(path)
        noise = np.random.default_rng(number).normal(2000, sigma, film.pixel_array.shape)
        film.PixelData = np.clip(noise, 0, 4095).astype("<u2").tobytes()
        film.save_as(path)
    first, second = derive(tmp_path / "in", tmp_path / "out", decoder)
    assert first.noise_before == pytest.approx(10, rel=0.2)
    assert second.noise_before == pytest.approx(60, rel=0.2)


def test_films_that_are_derived_one_by_one_share_a_folder(tmp_path):
    films(tmp_path / "in")
    derivations = [
        derive_volume(each, tmp_path / "out", smoothed, STUDENT)
        for each in volumes_in(tmp_path / "in")
    ]
    (folder,) = {each.series.folder for each in derivations}
    assert len(list(folder.iterdir())) == len(derivations) == 2


def test_one_photometric_interpretation_each(tmp_path, decoder):
    films(tmp_path / "in")
    path = tmp_path / "in" / "2.dcm"
    film = pydicom.dcmread(path)
    film.PhotometricInterpretation = "MONOCHROME1"
    film.save_as(path)
    assert len(derive(tmp_path / "in", tmp_path / "out", decoder)) == 2


def test_a_bad_film_does_not_refuse_its_neighbours(tmp_path, decoder):
    uids = films(tmp_path / "in", sizes=((64, 64), (70, 64), (64, 80), (48, 64)))
    damaged = tmp_path / "in" / "2.dcm"
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    same_uid = pydicom.dcmread(tmp_path / "in" / "3.dcm")
    same_uid.WindowWidth, same_uid.RescaleIntercept = 17, 5
    same_uid.save_as(tmp_path / "in" / "3again.dcm")
    found = find_series(tmp_path / "in", decoder, SelectionRules())
    assert [each.sop_instance_uid for each in found.candidates] == [uids[0], uids[3]]
    refused = {each.sop_instance_uid: each.reason for each in found.refused}
    assert refused == {uids[1]: "truncated-file", uids[2]: "duplicate-instance"}
    outcomes = derive(tmp_path / "in", tmp_path / "out", decoder)
    assert [each.status for each in outcomes] == ["derived", "derived"]


def test_films_of_two_patients_are_no_series(tmp_path, decoder):
    films(tmp_path / "in")
    path = tmp_path / "in" / "2.dcm"
    film = pydicom.dcmread(path)
    film.PatientID = "another"
    film.save_as(path)
    (refusal,) = find_series(tmp_path / "in", decoder, SelectionRules()).refused
    assert (refusal.reason, len(refusal.files)) == ("identity-conflict", 2)


class FailsOnce:
    """A network that gives nothing finite for an image of this many rows."""

    def __init__(self, rows):
        self.rows = rows

    def denoise(self, image, noise):
        return Estimate(image * float("nan") if image.shape[-2] == self.rows else image)


@pytest.mark.parametrize("failing", [96, 64])
def test_a_film_that_the_gate_refuses_leaves_the_other(failing, tmp_path, decoder):
    films(tmp_path / "in")
    outcomes = derive(tmp_path / "in", tmp_path / "out", decoder, FailsOnce(failing))
    assert sorted(each.status for each in outcomes) == ["derived", "refused"]
    (good,) = (each for each in outcomes if each.derived)
    assert [each.stem for each in good.derived.folder.iterdir()] == [
        *good.derived.sop_instance_uids
    ]
    assert "1 of 2 images not derived: quality-gate" in not_derived(outcomes)
    entry = result_of_series(outcomes)
    assert [each["status"] for each in entry["images"]] == [each.status for each in outcomes]


@pytest.mark.slow
def test_the_command_lists_each_film(tmp_path):
    uids = films(tmp_path / "in", sizes=((256, 256), (256, 192)))
    shipped = load_settings()
    settings = replace(
        shipped,
        denoise=replace(shipped.denoise, mode="identity"),
        output=replace(shipped.output, report=True),
    )
    result = run(Job(tmp_path / "in", tmp_path / "out", settings))
    assert result.exit_code == 0, result.outcomes
    written = json.loads((tmp_path / "out" / "report" / "result.json").read_text())
    assert [each["source_sop_instance_uid"] for each in written["series"]] == uids
    assert [each.sop_instance_uid for each in result.outcomes] == uids
