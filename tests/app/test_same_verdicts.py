"""`inspect` and `denoise` say the same of every series that its headers decide."""

import pytest

from stillscan.app.pipeline.pipeline import run_with
from stillscan.app.pipeline.survey import Job, survey
from stillscan.app.settings import load_settings
from stillscan.models.denoisers.denoiser import IdentityDenoiser
from stillscan.operators.graph.messages import Method
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.writing.provenance import Provenance

pytestmark = pytest.mark.slow

CONTROL = Provenance("0", "none", "none", "identity", 1.0, "none", "float32", "cpu")
# What only the pixels show; everything else is known when series are found.
FOUND_IN_PIXELS = {
    "corrupt-pixel-data",
    "decoder-stopped",
    "no-noise",
    "noise-outside-bundle",
    "unsupported-compression",
    "unused-bits-set",
}
FOLDERS = ("dev/dicom", "ct", "pet", "survey", "field", "bad", "hostile")


def load(bundles, settings):
    return {modality: Method(IdentityDenoiser(), CONTROL) for modality in bundles}


def key(outcome):
    return outcome.uid, outcome.message


def verdicts(outcomes):
    return {key(each): each.reason for each in outcomes}


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as running:
        yield running


@pytest.mark.data
@pytest.mark.parametrize("folder", FOLDERS)
def test_inspect_says_what_denoise_does(folder, decoder, stillscan_data, tmp_path):
    series = 0
    for number, source in enumerate(sorted((stillscan_data / folder).iterdir())):
        job = Job(source, tmp_path / str(number), load_settings())
        found = survey(job, decoder)
        result = run_with(job, decoder, load, overlapped=False)
        known = verdicts(found.passed_over)
        assert known.items() <= verdicts(result.outcomes).items(), source.name
        later = [each for each in result.outcomes if key(each) not in known]
        chosen = {each.sop_instance_uid or each.series_instance_uid for each, _ in found.chosen}
        assert {each.uid for each in later} == chosen
        reasons = {each.reason for each in later if each.status != "derived"}
        assert reasons <= FOUND_IN_PIXELS, source.name
        series += len(result.outcomes)
    assert series > 0
