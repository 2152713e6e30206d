"""Reads the expiry date of a certificate from its DER; the standard library has no function for it.

RFC 5280 4.1: Certificate, TBSCertificate ([0] version), serialNumber, signature, issuer, validity.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from stillscan.deploy.gateway.settings import GatewaySettings, Tls

PEM = re.compile(
    r"-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----",
)
SEQUENCE, VERSION, UTC_TIME, GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
BEFORE_VALIDITY = 3  # serialNumber, signature, issuer


def tls_sections(settings: GatewaySettings) -> Iterator[tuple[str, Tls]]:
    """The certificates of the settings, with the section that they are in."""
    sections = [("receiver", settings.receiver.tls), ("web", settings.web.tls)]
    sections += [(f"destinations.{each.name}", each.tls) for each in settings.destinations]
    yield from ((section, tls) for section, tls in sections if tls is not None)


def expires_at(path: Path) -> float:
    """Time after which the first certificate of a PEM file is no longer valid, since the epoch.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it contains no certificate.
    """
    found = PEM.search(path.read_text(encoding="ascii"))
    if found is None:
        raise ValueError("no certificate in the file")
    der = ssl.PEM_cert_to_DER_cert(found[0])
    certificate, _ = _content(der, 0, SEQUENCE)
    body, _ = _content(certificate, 0, SEQUENCE)
    at = 0
    if body[:1] == bytes([VERSION]):
        _, at = _content(body, at, VERSION)
    for _ in range(BEFORE_VALIDITY):
        _, at = _content(body, at, body[at])
    validity, _ = _content(body, at, SEQUENCE)
    _, at = _content(validity, 0, validity[0])
    kind = validity[at]
    text, _ = _content(validity, at, kind)
    return _moment(kind, text.decode("ascii"))


def _moment(kind: int, text: str) -> float:
    if kind == UTC_TIME:  # RFC 5280 4.1.2.5.1: years 50 to 99 are of 19..
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    elif kind != GENERALIZED_TIME:
        raise ValueError("a certificate without a date of expiry")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _content(der: bytes, at: int, tag: int) -> tuple[bytes, int]:
    """The content of the DER element at a position, and the position of the next element."""
    if len(der) < at + 2 or der[at] != tag:
        raise ValueError("no certificate in the file")
    length, start = der[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, start = int.from_bytes(der[start : start + count], "big"), start + count
    if len(der) < start + length:
        raise ValueError("a certificate that is cut off")
    return der[start : start + length], start + length
