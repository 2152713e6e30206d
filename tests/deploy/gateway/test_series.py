"""A series is complete when it is quiet, and one set of instances makes one job."""

import pytest

from stillscan.deploy.gateway.record.database import Database
from stillscan.deploy.gateway.record.incoming_series import SeriesRecord
from stillscan.deploy.gateway.settings import CompletenessSection
from tests.deploy.gateway.record import AT_ONCE, Record, filed, new_job

RULES = CompletenessSection(quiet_s=60.0, settled_s=5.0, patience_s=600.0)


@pytest.fixture
def record(tmp_path):
    return Record(tmp_path)


@pytest.mark.parametrize(
    ("expected", "seconds"),
    [(None, 60.0), (2, 5.0), (1, 5.0), (3, 600.0)],
    ids=["no count", "all there", "more than said", "short"],
)
def test_how_long_silence_has_to_be_depends_on_the_count(record, expected, seconds):
    record.series.file([filed(expected=expected), filed(expected=expected)])
    assert record.series.ready(RULES, 1000.0 + seconds - 0.1) == []
    (series,) = record.series.ready(RULES, 1000.0 + seconds)
    assert series.images == 2
    assert series.is_incomplete == (expected == 3)


def test_frames_count_as_images(record):
    record.series.file([filed(images=30, expected=30)])
    (series,) = record.series.ready(RULES, 1005.0)
    assert not series.is_incomplete


def test_an_instance_that_comes_again_keeps_the_series_open(record):
    first = filed(received=1000.0)
    assert record.series.file([first]) == set()
    again = filed(sop=first.sop_uid, received=1050.0)
    assert record.series.file([again]) == {first.name}
    assert record.series.ready(RULES, 1061.0) == []
    (series,) = record.series.ready(RULES, 1110.0)
    assert series.images == 1


def test_the_same_set_makes_one_job(record):
    first = filed()
    record.series.file([first])
    (series,) = record.ready()
    assert record.series.close(series, new_job(), 2000.0) is not None
    assert record.ready() == []
    record.series.file([first])
    (series,) = record.ready()
    assert record.series.close(series, new_job(), 2000.0) is None
    assert record.ready() == []


def test_another_set_or_another_configuration_makes_another_job(record):
    first = filed()
    record.series.file([first])
    (series,) = record.ready()
    record.series.close(series, new_job(), 2000.0)
    record.series.file([filed()])
    (series,) = record.ready()
    assert series.revision == 1
    assert record.series.close(series, new_job(), 2000.0) is not None
    record.series.file([first])
    (series,) = record.ready()
    changed = new_job()
    object.__setattr__(changed, "configuration", "another")
    assert record.series.close(series, changed, 2000.0) is not None


def test_a_series_that_grew_meanwhile_is_not_closed(record):
    record.series.file([filed(received=1000.0)])
    (series,) = record.ready()
    record.series.file([filed(received=1001.0)])
    assert record.series.close(series, new_job(), 2000.0) is None
    assert len(record.ready()) == 1


def test_series_do_not_mix(record):
    record.series.file([filed("1.1"), filed("1.2"), filed("1.1")])
    assert {each.uid: each.images for each in record.ready()} == {"1.1": 2, "1.2": 1}


def test_what_we_have_derived_is_known(record):
    record.job()
    assert not record.series.made_by_us("2.25.1")
    with record.database.transaction() as connection:
        connection.execute("UPDATE jobs SET derived_uid = '2.25.1'")
    assert record.series.made_by_us("2.25.1")


def test_the_record_outlives_its_process(tmp_path, record):
    record.series.file([filed()])
    record.database.close()
    again = SeriesRecord(Database(tmp_path / "gateway.sqlite"))
    assert len(again.ready(AT_ONCE, 2000.0)) == 1
