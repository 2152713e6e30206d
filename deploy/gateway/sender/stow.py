"""Delivery by STOW-RS: one request for the whole series, streamed from its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from pydicom import dcmread

from stillscan.app.dicomweb.endpoint import DicomWebError, Endpoint
from stillscan.app.dicomweb.query import instances_of
from stillscan.app.dicomweb.store import store
from stillscan.deploy.gateway.sender.errors import DeliveryFailedError
from stillscan.deploy.gateway.sender.tls import client_context
from stillscan.deploy.gateway.settings import Destination, Tls, token_of
from stillscan.operators.errors import SettingsError


def store_over_the_web(destination: Destination, files: Sequence[Path], timeout_s: float) -> str:
    """Store files with STOW-RS; arguments, result and errors as in `deliver.deliver`."""
    endpoint = _endpoint(destination, timeout_s)
    try:
        warned = store(endpoint, files)
        if destination.confirmation == "query":
            _require_listed(endpoint, files)
    except DicomWebError as error:
        raise DeliveryFailedError(error.reason, str(error)) from error
    return f"warning ({warned} of {len(files)} instances)" if warned else ""


def _require_listed(endpoint: Endpoint, files: Sequence[Path]) -> None:
    """Ask the archive, series by series, whether it has every instance.

    Raises:
        DeliveryFailedError: if it does not list all of them.
    """
    sent: dict[tuple[str, str], set[str]] = {}
    for file in files:
        header = dcmread(file, specific_tags=["StudyInstanceUID", "SeriesInstanceUID"])
        key = str(header.StudyInstanceUID), str(header.SeriesInstanceUID)
        sent.setdefault(key, set()).add(str(header.file_meta.MediaStorageSOPInstanceUID))
    missing = sum(len(uids - instances_of(endpoint, *key)) for key, uids in sent.items())
    if missing:
        raise DeliveryFailedError(
            "not-confirmed", f"the archive does not list {missing} of {len(files)} instances"
        )


def _endpoint(destination: Destination, timeout_s: float) -> Endpoint:
    secure = urlsplit(destination.url).scheme == "https"
    try:
        return Endpoint(
            destination.url,
            token_of(destination.token_file),
            timeout_s,
            client_context(destination.tls or Tls()) if secure else None,
        )
    except SettingsError as error:
        raise DeliveryFailedError("bad-settings", str(error)) from error
