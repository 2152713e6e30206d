"""Delivery by STOW-RS: one request for the whole series, streamed from its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from stillscan.app.dicomweb.endpoint import DicomWebError, Endpoint
from stillscan.app.dicomweb.store import store
from stillscan.deploy.gateway.sender.errors import DeliveryFailedError
from stillscan.deploy.gateway.sender.tls import client_context
from stillscan.deploy.gateway.settings import Destination, Tls, token_of
from stillscan.operators.errors import SettingsError


def store_over_the_web(destination: Destination, files: Sequence[Path], timeout_s: float) -> str:
    """Store files with STOW-RS; arguments, result and errors as in `deliver.deliver`."""
    try:
        warned = store(_endpoint(destination, timeout_s), files)
    except DicomWebError as error:
        raise DeliveryFailedError(error.reason, str(error)) from error
    return f"warning ({warned} of {len(files)} instances)" if warned else ""


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
