"""Every series of an archive is listed once, whatever pages the archive likes."""

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from stillscan.app.dicomweb.endpoint import DicomWebError, Endpoint
from stillscan.app.dicomweb.query import PAGE, all_series, is_uid, series_by_uid
from tests.app.dicomweb.answering import Answer, Asked, answering


def attribute(vr: str, value: object) -> dict[str, object]:
    return {"vr": vr, "Value": [value]}


def study(number: int) -> dict[str, object]:
    return {"0020000D": attribute("UI", f"1.{number}")}


def series(number: int, of: str) -> dict[str, object]:
    return {
        "0020000D": attribute("UI", of),
        "0020000E": attribute("UI", f"{of}.{number}"),
        "00080060": attribute("CS", "MR"),
        "00200011": attribute("IS", number),
        "00201209": attribute("IS", "24"),
    }


class Archive:
    """So many studies of two series each; gives at most `cap` at a time."""

    def __init__(self, studies: int, cap: int = 1000, *, knows_offset: bool = True) -> None:
        self._studies = [study(number) for number in range(studies)]
        self._cap = cap
        self._knows_offset = knows_offset

    def __call__(self, asked: Asked) -> Answer:
        url = urlsplit(asked.path)
        query = parse_qs(url.query)
        path = url.path.removeprefix("/dicom-web").strip("/").split("/")
        found = self._studies if path == ["studies"] else [series(1, path[1]), series(2, path[1])]
        offset = int(query["offset"][0]) if self._knows_offset else 0
        page = found[offset : offset + min(self._cap, int(query["limit"][0]))]
        return Answer(json.dumps(page).encode()) if page else Answer(status=204)


@pytest.mark.parametrize("studies", [0, 1, PAGE, PAGE + 1])
@pytest.mark.parametrize("cap", [1000, 30])
def test_every_series_is_listed_once(studies: int, cap: int):
    with answering(Archive(studies, cap)) as archive:
        found = [each.series_instance_uid for each in all_series(Endpoint(archive.url))]
    assert len(found) == len(set(found)) == 2 * studies


def test_an_archive_that_knows_no_offset_is_listed_once():
    with answering(Archive(7, knows_offset=False)) as archive:
        found = list(all_series(Endpoint(archive.url)))
    assert len(found) == 14
    assert (found[0].modality, found[0].series_number, found[0].instances) == ("MR", 1, 24)


def test_a_series_that_the_archive_has_not_is_none():
    with answering(lambda _: Answer(status=204)) as archive:
        assert series_by_uid(Endpoint(archive.url), "1.2.3") is None


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'["text"]', b"[1]"])
def test_nonsense_is_refused(body: bytes):
    with answering(lambda _: Answer(body)) as archive, pytest.raises(DicomWebError) as caught:
        list(all_series(Endpoint(archive.url)))
    assert caught.value.reason == "not-dicomweb"


def test_a_study_uid_that_is_none_is_asked_nothing():
    bad = {"0020000D": attribute("UI", "../../secret")}
    with answering(lambda _: Answer(json.dumps([bad]).encode())) as archive:
        assert list(all_series(Endpoint(archive.url))) == []
    assert all("secret" not in each.path for each in archive.asked)


@pytest.mark.parametrize("text", ["", ".", "..", "1..2", "1.2/3", "1.2\n", "1" * 65, ".1", "1."])
def test_texts_that_are_no_uid(text: str):
    assert not is_uid(text)
