"""One DICOMweb service: its address, who we are for it, and a request.

Redirects are not followed: they could take the credentials to another host.
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
    """A request failed; `reason` is a stable code. The next attempt may do better."""

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, reason: str, message: str) -> None:
        """`message` says what the service did; no patient data, no credentials."""
        super().__init__(message)
        self.reason = reason  # type: ignore[misc]  # of this one error, not of its class

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        """It may travel from one process to another."""
        return type(self), (self.reason, str(self))


@dataclass(frozen=True)
class Endpoint:
    """Where a DICOMweb service is.

    Attributes:
        url: up to `studies`, without credentials.
        authorization: the header of that name; never shown.
        timeout_s: of a connection, and of each piece of an answer.
        tls: who is trusted and who we are; None: the authorities of the system (SSL_CERT_FILE
            names another).
    """

    url: str
    authorization: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0
    tls: ssl.SSLContext | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the address.

        Raises:
            SettingsError: if it is none, or says who we are: others can read command lines.
        """
        try:
            parts = urlsplit(self.url)
            sound = parts.scheme in ("http", "https") and bool(parts.hostname)
            _ = parts.port
        except ValueError:
            sound = False
        if not sound:
            raise SettingsError("a DICOMweb address looks like https://pacs.example/dicom-web")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise SettingsError(
                "a DICOMweb address holds no user, password or query; credentials come from the "
                "environment"
            )
        if self.authorization and any(ord(each) in CONTROL for each in self.authorization):
            raise SettingsError("the credentials of a DICOMweb service hold control characters")

    @contextmanager
    def request(
        self,
        path: str,
        headers: Mapping[str, str],
        method: str = "GET",
        body: Iterable[bytes] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request and give its answer, whatever its status.

        Raises:
            DicomWebError: if there is no answer, or it breaks off while it is read.
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
            raise DicomWebError("unreachable", f"{type(error).__name__} on the way") from error
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        assert parts.hostname is not None, "checked when it was made"
        if parts.scheme == "https":
            context = self.tls or ssl.create_default_context()
            return http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=self.timeout_s, context=context
            )
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=self.timeout_s)


def require_ok(answer: http.client.HTTPResponse, what: str) -> None:
    """Refuse an answer that is no success.

    Raises:
        DicomWebError: names the HTTP status.
    """
    if not 200 <= answer.status < NOT_MODIFIED:
        raise DicomWebError(f"http-{answer.status}", f"{what}: HTTP {answer.status}")


def authorization_from(environment: Mapping[str, str], prefix: str) -> str | None:
    """The header Authorization that `<prefix>_TOKEN`, or `<prefix>_USER` and `_PASSWORD`, ask for.

    Raises:
        SettingsError: if both are set, or a user has no password.
    """
    token = environment.get(f"{prefix}_TOKEN")
    user, password = environment.get(f"{prefix}_USER"), environment.get(f"{prefix}_PASSWORD")
    if token and user:
        raise SettingsError(f"{prefix}_TOKEN and {prefix}_USER are set; only one may be")
    if token:
        return f"Bearer {token}"
    if user:
        if password is None:
            raise SettingsError(f"{prefix}_USER is set and {prefix}_PASSWORD is not")
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
    return None
