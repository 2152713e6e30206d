"""Cine series: places and phases, in order of trust, and what is refused."""

from dataclasses import replace

import pydicom
import pytest

from stillscan.operators.cine import (
    CineError,
    NotATriggerError,
    PhasesDifferError,
    PhasesNotMonotoneError,
    UnevenPhasesError,
    cine_series,
    heart_phases,
)
from stillscan.operators.denoising.plan import read_sample
from stillscan.operators.volume import Timing
from tests.derived import volumes_in
from tests.enhanced_factory import make_enhanced
from tests.series_factory import make_series

PLACES, PHASES = 2, 6
NONE = (None,) * PHASES
RISING = tuple(range(1, PHASES + 1))
TRIGGERS = tuple(150.0 * each for each in range(PHASES))


def read_volume(folder):
    (volume,) = volumes_in(folder)
    return volume


def attach_delays(file):
    """Turn the frames of an instance into phases, the last one first."""
    dataset = pydicom.dcmread(file)
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        group = pydicom.Dataset()
        group.NominalCardiacTriggerDelayTime = 750.0 - 150 * number
        group.RRIntervalTimeNominal = 900.0
        frame.CardiacSynchronizationSequence = [group]
    dataset.save_as(file)


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """Two places of six phases, phase by phase; the timing is that of each test."""
    make_series(
        folder := tmp_path_factory.mktemp("cine"),
        slices=PLACES * PHASES,
        ImagePositionPatient=lambda index: ["0", "0", str(index // PHASES * 10)],
        TriggerTime=lambda index: str(TRIGGERS[index % PHASES]),
        NominalInterval="900",
    )
    return read_volume(folder)


def timed(volume, trigger=NONE, delay=NONE, identifier=NONE, index=NONE, **more):
    """The volume with this timing, the same at each place; slices lie place by place."""
    slices = sorted(volume.slices, key=lambda each: (each.place, each.instance_number))
    given = list(zip(trigger, delay, identifier, index, strict=True))
    timings = [Timing(*given[number % len(given)], **more) for number in range(len(slices))]
    return replace(
        volume,
        slices=tuple(
            replace(each, timing=timing) for each, timing in zip(slices, timings, strict=True)
        ),
    )


def test_a_classic_cine_is_read_as_places_and_phases(volume):
    cine = cine_series(volume)
    assert (len(cine.indices), cine.phases, cine.attribute) == (PLACES, PHASES, "TriggerTime")
    assert cine.times == (TRIGGERS,) * PLACES
    assert cine.interval_ms == 900
    assert cine.closes
    for of_place in cine.indices:
        numbers = [volume.slices[each].instance_number for each in of_place]
        assert numbers == sorted(numbers)
        assert len({volume.slices[each].place for each in of_place}) == 1


def test_a_multi_frame_cine_is_timed_by_its_cardiac_delay(tmp_path):
    (file,) = make_enhanced(tmp_path, modality="MR", frames=PHASES, order=[0] * PHASES)
    attach_delays(file)
    cine = cine_series(read_volume(tmp_path))
    assert cine.attribute == "NominalCardiacTriggerDelayTime"
    assert cine.times == (TRIGGERS,)
    frames = [cine.volume.slices[each].frame for each in cine.indices[0]]
    assert frames == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("timing", "attribute"),
    [
        ({"trigger": TRIGGERS, "delay": RISING, "identifier": RISING}, "TriggerTime"),
        ({"delay": TRIGGERS, "identifier": RISING}, "NominalCardiacTriggerDelayTime"),
        ({"trigger": (3.0,) * PHASES, "identifier": RISING}, "TemporalPositionIdentifier"),
        ({"index": RISING}, "TemporalPositionIndex"),
        ({"phases": PHASES}, "InstanceNumber"),
    ],
)
def test_the_most_trusted_attribute_that_differs_tells_phases(volume, timing, attribute):
    cine = cine_series(timed(volume, **timing))
    assert (cine.attribute, cine.phases) == (attribute, PHASES)


@pytest.mark.parametrize(
    ("timing", "error"),
    [
        ({}, CineError),  # images of one place, and nothing says that they are phases
        ({"phases": 4}, CineError),
        ({"identifier": (1, 2, 3, 1, 2, 3)}, CineError),
        ({"identifier": (1, 2, 3, 4, 5, 5)}, PhasesNotMonotoneError),
        ({"trigger": TRIGGERS, "identifier": RISING[::-1]}, PhasesNotMonotoneError),
        ({"trigger": (0, 150, 300, 600, 750, 900)}, UnevenPhasesError),
        ({"trigger": tuple(500.0 * each for each in range(PHASES))}, NotATriggerError),
        ({"trigger": (-20.0, *TRIGGERS[1:])}, NotATriggerError),
    ],
)
def test_what_is_no_cine_is_refused(volume, timing, error):
    with pytest.raises(CineError) as refused:
        cine_series(timed(volume, **timing))
    assert type(refused.value) is error


def test_uneven_phases_may_be_allowed(volume):
    uneven = timed(volume, trigger=(0, 150, 300, 600, 750, 900))
    assert cine_series(uneven, allow_uneven=True).phases == PHASES


def test_times_since_the_scan_began_are_no_triggers(volume):
    """The second place begins where the first ended, as Philips writes dynamics."""
    slices = timed(volume, trigger=TRIGGERS).slices
    later = [
        replace(
            each, timing=replace(each.timing, trigger_time_ms=each.timing.trigger_time_ms + add)
        )
        for number, each in enumerate(slices)
        for add in [900.0 * (number // PHASES)]
    ]
    with pytest.raises(NotATriggerError):
        cine_series(replace(volume, slices=tuple(later)))


def test_places_have_equally_many_phases(volume):
    with pytest.raises(PhasesDifferError):
        cine_series(replace(volume, slices=timed(volume, trigger=TRIGGERS).slices[:-1]))


def test_images_without_a_position_are_no_cine(volume):
    nowhere = tuple(replace(each, place=None) for each in volume.slices)
    with pytest.raises(CineError, match="ImagePositionPatient"):
        cine_series(replace(volume, slices=nowhere))


def test_phases_of_a_heart_are_no_repeats_and_time_points_are(volume):
    assert read_sample(volume).again == (None,) * 8
    dynamic = timed(volume, identifier=RISING)
    assert heart_phases(dynamic) == [()] * len(dynamic.slices)
    assert None not in read_sample(dynamic).again
    twice = timed(volume, trigger=TRIGGERS)  # two beats of each phase
    slices = [replace(each, place=twice.slices[0].place) for each in twice.slices]
    assert None not in read_sample(replace(twice, slices=tuple(slices))).again


@pytest.mark.data
def test_phases_of_a_simulated_cine_are_no_repeats(stillscan_data):
    folder = stillscan_data / "survey" / "cine" / "dicom" / "sim_cine_SC-N-02"
    volume = read_volume(folder)
    assert read_sample(volume).again == (None,) * 8
    cine = cine_series(volume)
    assert (len(cine.indices), cine.phases, cine.step, cine.closes) == (6, 20, 45.0, True)
