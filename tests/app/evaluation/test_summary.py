"""Tables compare like with like: the same slices for all rows of a table."""

import pytest

from stillscan.app.evaluation.summary import groups
from stillscan.app.evaluation.tables import all_tables


def record(method, values, *, subject="a", noise="gaussian 15", lesions=()):
    return {
        "kind": "simulated",
        "series": subject,
        "subject": subject,
        "domain": "mr",
        "noise": noise,
        "method": method,
        "conditioning": "blind",
        "slices": [
            {"slice": number, "psnr": value, "ssim": 0.5} for number, value in values.items()
        ],
        "lesions": list(lesions),
    }


def test_methods_on_the_same_slices_share_one_table():
    (group,) = groups([record("noisy", {0: 20.0, 1: 22.0}), record("student", {0: 30.0, 1: 31.0})])
    assert group.slices == 2
    assert not group.costly
    assert group.mean("student", "psnr").value == 30.5
    assert group.difference("noisy", "student").value == -9.5


def test_costly_methods_stand_in_a_table_of_middles_with_all_others():
    whole, middles = groups(
        [
            record("noisy", {0: 20.0, 1: 22.0}),
            record("student", {0: 30.0, 1: 31.0}),
            record("student", {0: 32.0}) | {"extent": "middle"},
            record("SRDS", {0: 33.0}) | {"extent": "middle"},
        ]
    )
    assert list(whole.methods) == ["noisy", "student"]
    assert middles.costly
    assert middles.slices == 1
    assert middles.difference("SRDS", "student").value == 1.0


def test_rows_of_a_table_are_measured_on_the_slices_that_all_share():
    """A teacher of one domain, say."""
    (group,) = groups(
        [
            record("student", {0: 30.0}),
            record("student", {0: 40.0}, subject="b"),
            record("SRDS", {0: 41.0}, subject="b"),
        ]
    )
    assert group.mean("student", "psnr").value == 40.0
    assert group.difference("SRDS", "student").value == 1.0


def test_means_weigh_slices_and_intervals_weigh_people():
    records = [
        record("noisy", {0: 20.0}),
        record("noisy", dict.fromkeys(range(9), 30.0), subject="b"),
    ]
    (group,) = groups(records)
    assert group.subjects == 2
    interval = group.mean("noisy", "psnr")
    assert interval.value == pytest.approx(29)
    assert (interval.low, interval.high) == (20, 30)


def test_lesions_of_other_slices_are_not_counted():
    lesion = {"shape": "disc", "size": 4, "contrast_sigma": 1.0, "visibility": 6.0, "share": 0.9}
    lesions = [lesion | {"slice": 0, "share": 0.1}, lesion | {"slice": 1}]
    (group,) = groups(
        [
            record("student", {0: 30.0, 1: 31.0}, lesions=lesions),
            record("SRDS", {1: 33.0}, lesions=lesions[1:]),
        ]
    )
    assert group.lesions_kept("student", 5.0, 9.0) == group.lesions_kept("SRDS", 5.0, 9.0)
    assert group.lesions_kept("student", 5.0, 9.0)[1] == 1


def test_every_row_of_a_table_is_as_long_as_its_header():
    repeat = {"slice": 0, "before": 2.0, "after": 1.5, "gain": 3.0}
    dprime = {"mean": 1.0, "low": 0.5, "high": 1.5, "discs": [1.0, 1.0, 1.0, 1.0]}
    records = [
        record("noisy", {0: 20.0}),
        {"kind": "repeat", "scan": "pair", "method": "noisy", "slices": [repeat]},
        {"kind": "low contrast", "dose": 10, "method": "noisy", "inserted": dprime,
         "delivered": dprime},
    ]  # fmt: skip
    tables = all_tables(records)
    assert [table.title for table in tables] == [
        "PSNR in dB / SSIM",
        "gaussian 15",
        "Repeated scans",
        "Low-contrast detectability",
    ]
    for table in tables:
        assert all(len(row) == len(table.header) for row in table.rows)
        assert table.markdown().count("\n|") == len(table.rows) + 2


def test_claims_are_differences_on_the_same_slices():
    places = {"empty_places": 1000, "structures": 0, "structures_erased": 0}
    records = [record("SRDS", {0: 33.0, 1: 34.0}), record("one step", {0: 32.5, 1: 33.5})]
    for each, invented in zip(records, (12, 2), strict=True):
        for row in each["slices"]:
            row |= places | {"invented": invented, "seconds": invented / 2}
    (claims,) = [t for t in all_tables(records) if t.title == "Pairs of methods"]
    (row,) = claims.rows
    assert row[:4] == ("gaussian 15", "SRDS", "one step", "0.50 [0.50, 0.50]")
    assert row[4].startswith("1.00 [0.5")
    assert row[-1] == "0.2"
