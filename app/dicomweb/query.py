"""QIDO-RS (PS3.18 10.6): list the series of an archive."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from stillscan.app.dicomweb.endpoint import DicomWebError, Endpoint, require_ok

log = logging.getLogger("stillscan")

PAGE = 100
MAX_ANSWER = 2**24
NO_CONTENT = 204
STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
MODALITY, SERIES_NUMBER, INSTANCES = "00080060", "00200011", "00201209"
ACCEPT = {"Accept": "application/dicom+json"}
UID = re.compile(r"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)*", re.ASCII)  # PS3.5 9.1


@dataclass(frozen=True)
class FoundSeries:
    """A series of an archive, with the attributes that the archive returns.

    Attributes:
        instances: number of instances; None if the archive does not state it.
    """

    study_instance_uid: str
    series_instance_uid: str
    modality: str
    series_number: int | None
    instances: int | None


def all_series(endpoint: Endpoint) -> Iterator[FoundSeries]:
    """Yield every series, study by study, page by page.

    Paging is over studies, so that series stored meanwhile do not shift the pages.

    Raises:
        DicomWebError: if the archive does not answer, or not as PS3.18 requires.
    """
    for study in _pages(endpoint, "/studies", STUDY, {}):
        uid = text(study, STUDY)
        if not is_uid(uid):  # it becomes part of a path
            log.warning("a study is skipped: the archive returns no valid StudyInstanceUID for it")
            continue
        path = f"/studies/{uid}/series"
        for series in _pages(endpoint, path, SERIES, {"includefield": [INSTANCES]}):
            yield _found(series, uid)


def series_by_uid(endpoint: Endpoint, series_instance_uid: str) -> FoundSeries | None:
    """Find one series in any study; None if the archive does not have it.

    Raises:
        DicomWebError: if the archive does not answer, or not as PS3.18 requires.
    """
    wanted = {"SeriesInstanceUID": series_instance_uid, "includefield": [STUDY, INSTANCES]}
    for series in _pages(endpoint, "/series", SERIES, wanted):
        if text(series, SERIES) == series_instance_uid and is_uid(text(series, STUDY)):
            return _found(series, text(series, STUDY))
    return None


def first_instance(endpoint: Endpoint, study: str, series: str) -> str | None:
    """Return the SOPInstanceUID of one instance of a series; None if it has no instance.

    Raises:
        DicomWebError: if the archive does not answer, or not as PS3.18 requires.
    """
    path = f"/studies/{study}/series/{series}/instances"
    found = _page(endpoint, path, {"limit": 1})
    return text(found[0], INSTANCE) if found else None


def instances_of(endpoint: Endpoint, study: str, series: str) -> set[str]:
    """Return the SOPInstanceUIDs of a series; empty if the archive does not have it.

    Raises:
        DicomWebError: if the archive does not answer, or not as PS3.18 requires.
    """
    path = f"/studies/{study}/series/{series}/instances"
    return {text(each, INSTANCE) for each in _pages(endpoint, path, INSTANCE, {})}


def _found(series: dict[str, Any], study: str) -> FoundSeries:
    return FoundSeries(
        study_instance_uid=study,
        series_instance_uid=text(series, SERIES),
        modality=text(series, MODALITY),
        series_number=_number(series, SERIES_NUMBER),
        instances=_number(series, INSTANCES),
    )


def _pages(
    endpoint: Endpoint, path: str, key: str, query: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield all matches; an archive may return fewer per request than asked for."""
    offset, last = 0, ""
    while page := _page(endpoint, path, {**query, "limit": PAGE, "offset": offset}):
        first = text(page[0], key)
        if first and first == last:
            return  # the archive ignores `offset`: this was everything
        yield from page
        offset, last = offset + len(page), first


def _page(endpoint: Endpoint, path: str, query: dict[str, Any]) -> list[dict[str, Any]]:
    with endpoint.request(f"{path}?{urlencode(query, doseq=True)}", ACCEPT) as answer:
        content = answer.read(MAX_ANSWER + 1)
    require_ok(answer, "the list of an archive")
    if answer.status == NO_CONTENT or not content:
        return []
    try:
        found = json.loads(content) if len(content) <= MAX_ANSWER else None
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise DicomWebError("not-dicomweb", "the list of an archive is not DICOM JSON")
    return found


def text(item: dict[str, Any], tag: str) -> str:
    """Return the first value of an attribute in DICOM JSON (PS3.18 F.2); "" if it is empty."""
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]).strip() if isinstance(values, list) and values else ""


def is_uid(value: str) -> bool:
    """Return whether a text is a UID, and so can be part of a path."""
    return UID.fullmatch(value) is not None


def _number(item: dict[str, Any], tag: str) -> int | None:
    value = text(item, tag)
    return int(value) if value.removeprefix("-").isdecimal() else None
