"""Every bad input is refused with its reason, or processed where it is valid, under the limits."""

import json
import shutil

import pytest

from bench.robustness.fuzz import peak_kilobytes
from stillscan.operators.errors import InputError
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.file_names import shown
from stillscan.operators.reading.read_series import Catalogue, find_series, read_series
from stillscan.operators.reading.selection import SelectionRules
from tests.bad_inputs import BAD_INPUTS, SECONDS, BadInput, processor_seconds

CHILD_KILOBYTES = 2**20
REASONS = {case.reason for case in BAD_INPUTS.values()}
IDENTITY = ("TEST", "BAD^", "etc/passwd")


def reasons(catalogue: Catalogue, decoder: Decoder) -> list[tuple[str, str, str]]:
    """Outcome, reason and message of everything in a catalogue that is not processed."""
    found = [("skipped", each.reason, each.message) for each in catalogue.skipped]
    for refusal in catalogue.refused:
        outcome = "not-selected" if refusal.by_rules else "refused"
        found.append((outcome, refusal.reason, refusal.message))
    for candidate in catalogue.candidates:
        try:
            for _ in read_series(candidate, decoder).blocks():
                pass
        except InputError as error:
            found.append(("refused", error.reason, str(error)))
    return found


def require_processed(case: BadInput, catalogue: Catalogue, decoder: Decoder) -> None:
    volumes = [read_series(candidate, decoder) for candidate in catalogue.candidates]
    assert tuple(len(volume.slices) for volume in volumes) == case.slices
    assert sum(len(b.headers) for v in volumes for b in v.blocks()) == sum(case.slices)
    assert case.warned in "; ".join(warning for volume in volumes for warning in volume.warnings)


@pytest.mark.data
@pytest.mark.filterwarnings("ignore:Unknown encoding 'ISO_IR 999'")  # h25, said by pydicom
@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_input_is_read_as_the_table_says(name, stillscan_data):
    case, source = BAD_INPUTS[name], stillscan_data / "bad" / name
    before = processor_seconds()
    with Decoder() as decoder:
        first_child = decoder.process_id
        catalogue = find_series(source, decoder, SelectionRules())
        if case.outcome == "processed":
            require_processed(case, catalogue, decoder)
        else:
            found = reasons(catalogue, decoder)
            assert [(case.outcome, case.reason)] == [(each[0], each[1]) for each in found]
            files = [source] if source.is_file() else list(source.iterdir())
            assert any(shown(each) in found[0][2] for each in files), "the message names the file"
            assert not any(word in found[0][2] for word in IDENTITY)
        assert decoder.process_id == first_child, "no bad input ends the reading child"
        assert 0 < peak_kilobytes(decoder.process_id) < CHILD_KILOBYTES
    assert processor_seconds() - before < SECONDS


@pytest.mark.data
def test_table_knows_every_bad_input(stillscan_data):
    listed = json.loads((stillscan_data / "bad" / "bad.json").read_text(encoding="utf-8"))
    assert {each["file"].rstrip("/") for each in listed} == set(BAD_INPUTS)


@pytest.mark.data
def test_all_bad_inputs_in_one_folder_are_accounted_for(stillscan_data, tmp_path):
    folder = shutil.copytree(stillscan_data / "bad", tmp_path / "all")
    with Decoder() as decoder:
        catalogue = find_series(folder, decoder, SelectionRules())
        assert {each[1] for each in reasons(catalogue, decoder)} <= REASONS
    files = sum(len(each.files) for each in (*catalogue.refused, *catalogue.skipped))
    files += sum(len(each.instances) for each in catalogue.candidates)
    assert files == sum(path.is_file() for path in folder.rglob("*")), "every file is accounted for"
