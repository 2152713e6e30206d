"""Checks what the settings point to: certificates, tokens, folders, bundles, DICOM keywords.

`stillscan-gateway check` and `serve` do this before anything starts, so that a wrong path is an
error with its key now, not a failed delivery later.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.deploy.gateway.certificates import expires_at, tls_sections
from stillscan.deploy.gateway.planner.planner import configuration_digest
from stillscan.deploy.gateway.planner.rules import require_known_keywords
from stillscan.deploy.gateway.settings import (
    GatewaySettings,
    Tls,
    load_gateway_settings,
    token_of,
    users_of,
)
from stillscan.models.bundle import BundleError, find_bundles
from stillscan.operators.errors import SettingsError


def usable_settings(config: Path | None) -> GatewaySettings:
    """Read the settings and check everything that they point to.

    Raises:
        SettingsError: with the key, its value and what is expected.
    """
    settings = load_gateway_settings(config)
    require_known_keywords(settings.rules)
    for key, folder in _folders(settings):
        _require_folder(key, folder, writable=key == "data")
    for key, file in _token_files(settings):
        try:
            (users_of if key == "web.token-file" else token_of)(file)
        except SettingsError as error:
            raise SettingsError(f"'{key}': {error}") from error
    for key, tls in tls_sections(settings):
        _require_certificates(f"{key}.tls", tls, server=not key.startswith("destinations"))
    _require_bundles(settings)
    configuration_digest(settings)  # reads the settings of the application
    return settings


def _token_files(settings: GatewaySettings) -> Iterator[tuple[str, Path | None]]:
    yield "web.token-file", settings.web.token_file
    for each in settings.destinations:
        yield f"destinations.{each.name}.token-file", each.token_file


def _folders(settings: GatewaySettings) -> Iterator[tuple[str, Path]]:
    yield "data", settings.data
    for each in settings.destinations:
        if each.folder is not None:
            yield f"destinations.{each.name}.folder", each.folder


def _require_folder(key: str, folder: Path, *, writable: bool) -> None:
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not there.is_dir() or (writable and not os.access(there, os.W_OK | os.X_OK)):
        raise SettingsError(f"'{key}' is '{folder}'; expected a folder that can be written to")


def _require_certificates(key: str, tls: Tls, *, server: bool) -> None:
    if server and tls.certificate is None:
        raise SettingsError(f"'{key}' has no 'certificate'; a server needs 'certificate' and 'key'")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    try:
        if tls.authority is not None:
            context.load_verify_locations(tls.authority)
        if tls.certificate is None:
            return
        context.load_cert_chain(tls.certificate, tls.key)
        expires = expires_at(tls.certificate)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = ", ".join(f"'{each}'" for each in (tls.certificate, tls.key, tls.authority) if each)
        raise SettingsError(
            f"'{key}' names {files}; expected PEM files, the key being that of the certificate"
        ) from error
    if expires < time.time():
        raise SettingsError(
            f"'{key}.certificate' is '{tls.certificate}', which expired on "
            f"{datetime.fromtimestamp(expires, UTC).date()}; expected a valid certificate"
        )


def _require_bundles(settings: GatewaySettings) -> None:
    folder = settings.models or DEFAULT_BUNDLES
    try:
        names = [each.name for each in find_bundles(folder)]
    except BundleError as error:
        raise SettingsError(f"'models' is '{folder}'; expected a folder of bundles") from error
    for rule in settings.rules:
        if rule.bundle is not None and rule.bundle not in names:
            raise SettingsError(
                f"'rules.{rule.name}.bundle' is '{rule.bundle}'; expected one of {', '.join(names)}"
            )
