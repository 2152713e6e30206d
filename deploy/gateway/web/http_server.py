"""A small HTTP/1.1 server for the status page and STOW-RS: one request per connection.

The listener reads the head of a request (so that slow clients do not occupy a thread), a thread
reads the body. Both have limits of size and time; h11 parses them. The security headers of every
response restrict a browser to displaying it.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from urllib.parse import unquote, urlsplit

import h11

from stillscan.deploy.gateway.receiver.listener import (
    BadFirstMessageError,
    Connection,
    Listener,
    Sessions,
    close_socket,
)
from stillscan.deploy.gateway.settings import LOOPBACK, WebSection
from stillscan.operators.errors import StillscanError
from stillscan.operators.internal_fault import setting_aside

log = logging.getLogger("stillscan.gateway")

MAX_HEAD = 2**14
MAX_FIELDS = 100
HEAD_S = 10.0
IDLE_S = 30.0  # between two pieces of a body
REQUEST_S = 3600.0  # a whole request
DRAIN_S = 3.0  # for running requests when the server stops
MAX_SESSIONS = 64
PIECE = 2**16
# folded header lines (obs-fold) and bare CR or LF, which proxies may interpret differently
UNCLEAN_HEAD = re.compile(rb"\r\n[ \t]|(?<!\r)\n|\r(?!\n)")
NOT_HTTP = "not a valid HTTP request"
LOOPBACK_ADDRESSES = (LOOPBACK, "localhost", "::1")
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/@\s]+)(?::[0-9]*)?")  # RFC 9110 7.2
STRICT_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY = {
    "Content-Security-Policy": STRICT_CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class RequestError(Exception):
    """The request is answered with this error."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        """`message` is shown to the client: no patient data."""
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Response:
    """A response; `headers` are added to the security headers that every response has."""

    status: HTTPStatus = HTTPStatus.OK
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


def text_response(text: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """A response with a line of plain text."""
    return Response(status, (text + "\n").encode())


def json_response(
    value: object, status: HTTPStatus = HTTPStatus.OK, content_type: str = "application/json"
) -> Response:
    """A response with a JSON document."""
    return Response(status, json.dumps(value).encode(), content_type)


class Request:
    """A request whose head was read; h11 parses it.

    Attributes:
        path: percent-decoded, without the query.
        headers: by name, not case-sensitive.
    """

    def __init__(self, connection: Connection, most_body: int) -> None:
        """Parse the head.

        Raises:
            RequestError: if it is not a valid HTTP/1.1 request.
        """
        head, _, _ = connection.first_message.partition(b"\r\n\r\n")
        if UNCLEAN_HEAD.search(head):  # h11 lets these pass
            raise RequestError(HTTPStatus.BAD_REQUEST, NOT_HTTP)
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        parser.receive_data(connection.first_message)
        event = _next_event(parser)
        if not isinstance(event, h11.Request):
            raise RequestError(HTTPStatus.BAD_REQUEST, NOT_HTTP)
        if event.http_version not in (b"1.1", b"1.0"):
            raise RequestError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is required")
        if len(event.headers) > MAX_FIELDS:
            raise RequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too many header fields")
        self.host = connection.host
        self.method = event.method.decode("ascii")
        self.path = _path(event.target.decode("ascii"))
        self.headers = Message()
        for name, value in event.headers:
            self.headers[name.decode("ascii")] = value.decode("latin-1")
        self._body = _Body(connection.sock, parser, self.headers, most_body)

    def read(self) -> bytes:
        """The next piece of the body; empty at its end.

        Raises:
            RequestError: if the body is too large or ends early.
        """
        return self._body.read()

    def has_token(self, token: str) -> bool:
        """Whether the request carries this bearer token."""
        scheme, _, given = self.headers.get("Authorization", "").strip().partition(" ")
        if scheme.lower() != "bearer":  # RFC 9110 11.1: its case does not count
            return False
        return hmac.compare_digest(given.strip().encode(), token.encode())


def _next_event(parser: h11.Connection) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
    try:
        return parser.next_event()
    except h11.RemoteProtocolError as error:
        status = HTTPStatus(error.error_status_hint)
        message = NOT_HTTP if status == HTTPStatus.BAD_REQUEST else status.phrase.lower()
        raise RequestError(status, message) from error


def _path(target: str) -> str:
    try:
        return unquote(urlsplit(target).path)
    except ValueError as error:  # an IPv6 address without its closing bracket
        raise RequestError(HTTPStatus.BAD_REQUEST, NOT_HTTP) from error


Handle = Callable[[Request], Response]


class HttpServer:
    """Answers requests, each in its own thread."""

    def __init__(
        self, settings: WebSection, handle: Handle, beat: Callable[[], None] = lambda: None
    ) -> None:
        """Open the port; `serve` answers requests and calls `beat` in every round of its loop.

        Raises:
            OSError: if the port or a certificate cannot be used.
        """
        self._settings = settings
        self._handle = handle
        self._sessions = Sessions(MAX_SESSIONS, MAX_SESSIONS)
        self._listener = Listener(
            (settings.host, settings.port),
            _head_bytes_missing,
            self._admit,
            deadline_s=HEAD_S,
            tls=settings.tls,
            beat=beat,
        )

    @property
    def port(self) -> int:
        """The port of the listening socket."""
        return self._listener.port

    def serve(self, stop: threading.Event) -> None:
        """Answer until `stop` is set."""
        self._listener.serve(stop)
        self._sessions.drain(DRAIN_S)

    def _admit(self, connection: Connection) -> None:
        if not self._sessions.start(connection, self._serve):
            busy = text_response("too many requests", HTTPStatus.SERVICE_UNAVAILABLE)
            close_socket(connection.sock, _encoded(busy))

    def _serve(self, connection: Connection) -> None:
        connection.sock.settimeout(IDLE_S)
        try:
            response, body = self._response(connection)
            connection.sock.sendall(_encoded(response, body))
            _wait_for_close(connection.sock)
        except OSError as error:
            log.debug("request from %s ended early: %s", connection.host, error.strerror)

    def _response(self, connection: Connection) -> tuple[Response, bool]:
        """The response, and whether its body is sent (not for HEAD)."""
        try:
            with setting_aside(RequestError, OSError):
                request = Request(connection, self._settings.max_request_mb * 2**20)
                self._require_our_name(request)
                response = self._handle(request)
        except RequestError as error:
            return text_response(str(error), error.status), True
        except StillscanError as error:  # a bug: only this request fails
            log.error("request from %s: %s: %s", connection.host, error.reason, error)
            return text_response(error.reason, HTTPStatus.INTERNAL_SERVER_ERROR), True
        return response, request.method != "HEAD"

    def _require_our_name(self, request: Request) -> None:
        """Refuse requests whose Host is not a loopback name (DNS rebinding by other sites)."""
        host = HOST.fullmatch(request.headers.get("Host", "").strip())
        name = host[1].lower() if host else ""
        if self._settings.host in LOOPBACK_ADDRESSES and name not in LOOPBACK_NAMES:
            raise RequestError(HTTPStatus.MISDIRECTED_REQUEST, "use 127.0.0.1 or localhost")


class _Body:
    """The body of a request, in pieces."""

    def __init__(
        self, connection: socket.socket, parser: h11.Connection, headers: Message, most: int
    ) -> None:
        length = headers.get("Content-Length")
        if length is not None and "Transfer-Encoding" in headers:
            # a proxy may follow the other one: request smuggling (RFC 9112 6.3)
            raise RequestError(
                HTTPStatus.BAD_REQUEST, "Content-Length and Transfer-Encoding contradict each other"
            )
        if length is not None and int(length) > most:
            raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {most} bytes")
        self._connection, self._parser = connection, parser
        self._room = most
        self._ended = False
        self._deadline = time.monotonic() + REQUEST_S

    def read(self) -> bytes:
        while not self._ended:
            event = _next_event(self._parser)
            if isinstance(event, h11.Data):
                self._room -= len(event.data)
                if self._room < 0:
                    raise RequestError(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the request is too large"
                    )
                return bytes(event.data)
            if event is h11.NEED_DATA:
                self._parser.receive_data(self._from_connection())
            else:
                self._ended = True
        return b""

    def _from_connection(self) -> bytes:
        if self._parser.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            self._connection.sendall(self._parser.send(go_on) or b"")
        try:
            piece = self._connection.recv(PIECE)
        except TimeoutError as error:
            raise RequestError(
                HTTPStatus.REQUEST_TIMEOUT, "the body did not arrive in time"
            ) from error
        if not piece or time.monotonic() > self._deadline:
            raise RequestError(HTTPStatus.BAD_REQUEST, "the body is incomplete")
        return piece


def _head_bytes_missing(so_far: bytearray) -> int:
    if b"\r\n\r\n" in so_far:
        return 0
    if len(so_far) >= MAX_HEAD:
        large = text_response("head is too large", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        raise BadFirstMessageError("the head of a request is too large", _encoded(large))
    return MAX_HEAD - len(so_far)


def _encoded(response: Response, body: bool = True) -> bytes:
    headers = {
        **SECURITY,
        "Content-Type": response.content_type,
        "Content-Length": str(len(response.body)),
        "Connection": "close",
        **response.headers,
    }
    lines = [f"HTTP/1.1 {response.status.value} {response.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join(lines).encode("ascii") + b"\r\n\r\n"
    return head + response.body if body else head


def _wait_for_close(connection: socket.socket) -> None:
    """Wait briefly for the client to close first: after a reset it might lose the response."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(1.0)
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline and connection.recv(PIECE):
            pass
