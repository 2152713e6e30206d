"""UIDs that follow from what was done, and the words that say it."""

from dataclasses import fields, replace

import pytest
from pydicom.uid import UID

from stillscan.operators.writing.derived_uids import derived_instance_uid, derived_series_uid
from stillscan.operators.writing.provenance import (
    CODING_SCHEME_UID,
    EXTENSION_CREATOR_UID,
    IMPLEMENTATION_CLASS_UID,
    Provenance,
    implementation_version_name,
)
from tests.derived import IDENTITY, STUDENT

SERIES = "1.2.3"
INSTANCES = ["1.2.3.1", "1.2.3.2", "1.2.3.3"]
OPTIONS: dict[str, object] = {"suffix": " quiet", "private_attributes": ()}


def uid(
    series: str = SERIES,
    instances: list[str] | None = None,
    provenance: Provenance = STUDENT,
    options: dict[str, object] | None = None,
) -> str:
    return derived_series_uid(series, instances or INSTANCES, provenance, options or OPTIONS)


def test_same_everything_gives_the_same_uids() -> None:
    assert uid() == uid()
    assert derived_instance_uid(uid(), "1.2.3.1") == derived_instance_uid(uid(), "1.2.3.1")


def test_uids_do_not_change_from_run_to_run() -> None:
    assert uid() == "2.25.153572377532946322340043455794407496852"


def test_order_of_instances_does_not_change_the_series_uid() -> None:
    assert uid(instances=INSTANCES[::-1]) == uid()


def test_a_late_slice_makes_a_new_series_uid() -> None:
    assert uid(instances=[*INSTANCES, "1.2.3.4"]) != uid()


@pytest.mark.parametrize("field", [each.name for each in fields(Provenance)])
def test_whatever_can_change_a_pixel_changes_the_series_uid(field: str) -> None:
    other = 0.5 if field in ("strength", "confirmed_share") else "other"
    assert uid(provenance=replace(STUDENT, **{field: other})) != uid()


def test_another_option_changes_the_series_uid() -> None:
    assert uid(options=OPTIONS | {"suffix": " silent"}) != uid()


def test_the_source_series_changes_the_series_uid() -> None:
    assert uid(series="1.2.4") != uid()


def test_instances_of_two_derived_series_differ() -> None:
    assert derived_instance_uid(uid(), "1.2.3.1") != derived_instance_uid(uid("1.2.4"), "1.2.3.1")
    assert derived_instance_uid(uid(), "1.2.3.1") != derived_instance_uid(uid(), "1.2.3.2")


def test_derived_uids_are_valid_and_never_one_of_the_source() -> None:
    made = {uid(), *(derived_instance_uid(uid(), each) for each in INSTANCES)}
    assert len(made) == 4
    assert all(UID(each).is_valid and len(each) <= 64 for each in made)
    assert not made & {SERIES, *INSTANCES}


@pytest.mark.parametrize(
    "own", [IMPLEMENTATION_CLASS_UID, CODING_SCHEME_UID, EXTENSION_CREATOR_UID]
)
def test_our_own_uids_are_uuid_derived(own: str) -> None:
    assert UID(own).is_valid
    assert 2**120 < int(own.removeprefix("2.25.")) < 2**128


def test_implementation_version_name_fits_an_sh() -> None:
    assert implementation_version_name("0.1.0") == "STILLSCAN_0.1.0"
    assert len(implementation_version_name("10.11.12.dev345")) == 16


def test_derivation_names_version_model_mode_and_strength() -> None:
    made = replace(STUDENT, model_sha256="ab" * 32, strength=0.5)
    for part in ("Stillscan 0.1.0", "model mr", "ab" * 32, "mode student", "strength 0.5"):
        assert part in made.derivation
    assert "read together with the original" in made.derivation
    assert made.derivation.isascii()


def test_derivation_says_what_repeats_bear_out() -> None:
    assert "strength 1, torch" in STUDENT.derivation
    made = replace(STUDENT, confirmed_share=0.48)
    assert "strength 1 of the 48 % that the series confirms, torch" in made.derivation


def test_a_control_is_not_called_noise_reduction() -> None:
    assert "Noise reduction" in STUDENT.derivation
    assert "Control without noise reduction" in IDENTITY.derivation
