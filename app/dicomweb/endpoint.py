"""A DICOMweb service: address, credentials and requests.

Redirects are not followed, since they could send the credentials to another host.
"""

from __future__ import annotations

import base64
import http.client
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from stillscan.operators.errors import ExitCode, SettingsError, StillscanError

CONTROL = range(0x20)
NOT_MODIFIED = 300


class DicomWebError(StillscanError):
    """A request failed; `reason` is a stable code. A later attempt may succeed."""

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, reason: str, message: str) -> None:
        """`message` describes the failure, without patient data and credentials."""
        super().__init__(message)
        self.reason = reason  # type: ignore[misc]  # differs between errors of this class

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        """Allow pickling, to pass the error between processes."""
        return type(self), (self.reason, str(self))


@dataclass(frozen=True)
class Endpoint:
    """The address of a DICOMweb service and the credentials for it.

    Attributes:
        url: base URL, up to `studies`, without credentials.
        authorization: value of the header Authorization; never shown.
        timeout_s: time limit for a connection, and for each read of an answer.
        tls: trusted authorities and own certificate; None: the authorities of the system
            (SSL_CERT_FILE names others).
    """

    url: str
    authorization: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0
    tls: ssl.SSLContext | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the URL.

        Raises:
            SettingsError: if it is not a URL, or contains credentials (command lines can be read by
                others).
        """
        try:
            parts = urlsplit(self.url)
            sound = parts.scheme in ("http", "https") and bool(parts.hostname)
            _ = parts.port
        except ValueError:
            sound = False
        if not sound:
            raise SettingsError("a DICOMweb URL looks like https://pacs.example/dicom-web")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise SettingsError(
                "a DICOMweb URL must not contain user, password or query; credentials come from "
                "the environment"
            )
        if self.authorization and any(ord(each) in CONTROL for each in self.authorization):
            raise SettingsError("the credentials of a DICOMweb service contain control characters")

    @contextmanager
    def request(
        self,
        path: str,
        headers: Mapping[str, str],
        method: str = "GET",
        body: Iterable[bytes] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request and return its answer, whatever its status.

        Raises:
            DicomWebError: if there is no answer, or the connection is lost while it is read.
        """
        parts = urlsplit(self.url)
        sent = {"Accept-Encoding": "identity", **headers}
        if self.authorization:
            sent["Authorization"] = self.authorization
        connection = self._connection()
        try:
            target = parts.path.rstrip("/") + path
            connection.request(method, target, body, sent)
            yield connection.getresponse()
        except TimeoutError as error:
            raise DicomWebError("no-answer", "no answer in time") from error
        except ssl.SSLError as error:
            raise DicomWebError("bad-certificate", f"TLS: {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise DicomWebError(
                "unreachable", f"connection failed ({type(error).__name__})"
            ) from error
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        assert parts.hostname is not None, "checked in __post_init__"
        if parts.scheme == "https":
            context = self.tls or ssl.create_default_context()
            return http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=self.timeout_s, context=context
            )
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=self.timeout_s)


def require_ok(answer: http.client.HTTPResponse, what: str) -> None:
    """Raise an error unless the answer has a success status.

    Raises:
        DicomWebError: with the HTTP status.
    """
    if not 200 <= answer.status < NOT_MODIFIED:
        raise DicomWebError(f"http-{answer.status}", f"{what}: HTTP {answer.status}")


def authorization_from(environment: Mapping[str, str], prefix: str) -> str | None:
    """Build the header Authorization from `<prefix>_TOKEN`, or `<prefix>_USER` and `_PASSWORD`.

    Raises:
        SettingsError: if both are set, or a user has no password.
    """
    token = environment.get(f"{prefix}_TOKEN")
    user, password = environment.get(f"{prefix}_USER"), environment.get(f"{prefix}_PASSWORD")
    if token and user:
        raise SettingsError(f"{prefix}_TOKEN and {prefix}_USER are both set; set only one")
    if token:
        return f"Bearer {token}"
    if user:
        if password is None:
            raise SettingsError(f"{prefix}_USER is set and {prefix}_PASSWORD is not")
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
    return None
