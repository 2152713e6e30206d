"""A small HTTP/1.1 server with bounds, for the status page and STOW-RS: one request a connection.

The listener reads the head of a request (so that slow ones cost nothing), a thread the body; both
have limits, and h11 parses them. Every response carries headers that keep a browser from doing
anything but showing it.
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
    BadGreetingError,
    Caller,
    Guests,
    Listener,
    hang_up,
)
from stillscan.deploy.gateway.settings import LOOPBACK, WebSection
from stillscan.operators.errors import StillscanError
from stillscan.operators.internal_fault import setting_aside

log = logging.getLogger("stillscan.gateway")

MOST_HEAD = 2**14
MOST_FIELDS = 100
HEAD_S = 10.0
IDLE_S = 30.0  # between two pieces of a body
REQUEST_S = 3600.0  # a whole request
LEAVING_S = 3.0  # for running requests when the server stops
MOST_GUESTS = 64
PIECE = 2**16
# a line that goes on in the next (obs-fold), and ends of lines that others may not take for such
UNCLEAN_HEAD = re.compile(rb"\r\n[ \t]|(?<!\r)\n|\r(?!\n)")
NO_REQUEST = "this is no HTTP request"
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
    """A request that gets an error for an answer."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        """`message` is shown to the client: no patient data."""
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Response:
    """What is answered; `headers` come on top of those that every response has."""

    status: HTTPStatus = HTTPStatus.OK
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


def text_response(text: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """A line of plain text."""
    return Response(status, (text + "\n").encode())


def json_response(
    value: object, status: HTTPStatus = HTTPStatus.OK, content_type: str = "application/json"
) -> Response:
    """A JSON document."""
    return Response(status, json.dumps(value).encode(), content_type)


class Request:
    """A request whose head is read; it is parsed by h11.

    Attributes:
        path: decoded, without the query.
        headers: by name, whose case does not count.
    """

    def __init__(self, caller: Caller, most_body: int) -> None:
        """Parse the head.

        Raises:
            RequestError: if it is none.
        """
        head, _, _ = caller.greeting.partition(b"\r\n\r\n")
        if UNCLEAN_HEAD.search(head):  # h11 lets these pass
            raise RequestError(HTTPStatus.BAD_REQUEST, NO_REQUEST)
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD)
        parser.receive_data(caller.greeting)
        event = _next_event(parser)
        if not isinstance(event, h11.Request):
            raise RequestError(HTTPStatus.BAD_REQUEST, NO_REQUEST)
        if event.http_version not in (b"1.1", b"1.0"):
            raise RequestError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is spoken here")
        if len(event.headers) > MOST_FIELDS:
            raise RequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too many header fields")
        self.host = caller.host
        self.method = event.method.decode("ascii")
        self.path = _path(event.target.decode("ascii"))
        self.headers = Message()
        for name, value in event.headers:
            self.headers[name.decode("ascii")] = value.decode("latin-1")
        self._body = _Body(caller.connection, parser, self.headers, most_body)

    def read(self) -> bytes:
        """The next piece of the body; empty at its end.

        Raises:
            RequestError: if it is too large or ends early.
        """
        return self._body.read()

    def is_authorised(self, token: str | None) -> bool:
        """Whether the request bears the token; never where there is none."""
        scheme, _, given = self.headers.get("Authorization", "").strip().partition(" ")
        if token is None or scheme.lower() != "bearer":  # RFC 9110 11.1: its case does not count
            return False
        return hmac.compare_digest(given.strip().encode(), token.encode())


def _next_event(parser: h11.Connection) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
    try:
        return parser.next_event()
    except h11.RemoteProtocolError as error:
        status = HTTPStatus(error.error_status_hint)
        message = NO_REQUEST if status == HTTPStatus.BAD_REQUEST else status.phrase.lower()
        raise RequestError(status, message) from error


def _path(target: str) -> str:
    try:
        return unquote(urlsplit(target).path)
    except ValueError as error:  # an IPv6 address without its end
        raise RequestError(HTTPStatus.BAD_REQUEST, NO_REQUEST) from error


Handle = Callable[[Request], Response]


class HttpServer:
    """Answers requests, each in a thread of its own."""

    def __init__(
        self, settings: WebSection, handle: Handle, beat: Callable[[], None] = lambda: None
    ) -> None:
        """Listen; requests are answered when `serve` runs, which calls `beat` every round.

        Raises:
            OSError: if the port or a certificate cannot be used.
        """
        self._settings = settings
        self._handle = handle
        self._guests = Guests(MOST_GUESTS, MOST_GUESTS)
        self._listener = Listener(
            (settings.host, settings.port),
            _missing_of_head,
            self._admit,
            deadline_s=HEAD_S,
            tls=settings.tls,
            beat=beat,
        )

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._listener.port

    def serve(self, stop: threading.Event) -> None:
        """Answer until `stop` is set."""
        self._listener.serve(stop)
        self._guests.see_out(LEAVING_S)

    def _admit(self, caller: Caller) -> None:
        if not self._guests.welcome(caller, self._serve):
            busy = text_response("too many requests", HTTPStatus.SERVICE_UNAVAILABLE)
            hang_up(caller.connection, _encoded(busy))

    def _serve(self, caller: Caller) -> None:
        caller.connection.settimeout(IDLE_S)
        try:
            response, body = self._response(caller)
            caller.connection.sendall(_encoded(response, body))
            _let_it_read(caller.connection)
        except OSError as error:
            log.debug("request from %s ended early: %s", caller.host, error.strerror)

    def _response(self, caller: Caller) -> tuple[Response, bool]:
        """The response, and whether its body is sent."""
        try:
            with setting_aside(RequestError, OSError):
                request = Request(caller, self._settings.max_request_mb * 2**20)
                self._require_our_name(request)
                response = self._handle(request)
        except RequestError as error:
            return text_response(str(error), error.status), True
        except StillscanError as error:  # of this request alone
            log.error("request from %s: %s: %s", caller.host, error.reason, error)
            return text_response(error.reason, HTTPStatus.INTERNAL_SERVER_ERROR), True
        return response, request.method != "HEAD"

    def _require_our_name(self, request: Request) -> None:
        """Refuse pages of other sites whose name was made to lead here (DNS rebinding)."""
        host = HOST.fullmatch(request.headers.get("Host", "").strip())
        name = host[1].lower() if host else ""
        if self._settings.host in LOOPBACK_ADDRESSES and name not in LOOPBACK_NAMES:
            raise RequestError(HTTPStatus.MISDIRECTED_REQUEST, "ask for 127.0.0.1 or localhost")


class _Body:
    """The body of a request, in pieces."""

    def __init__(
        self, connection: socket.socket, parser: h11.Connection, headers: Message, most: int
    ) -> None:
        length = headers.get("Content-Length")
        if length is not None and "Transfer-Encoding" in headers:
            # one of the two could be for a proxy, to smuggle a second request (RFC 9112 6.3)
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
            raise RequestError(HTTPStatus.REQUEST_TIMEOUT, "the body does not come") from error
        if not piece or time.monotonic() > self._deadline:
            raise RequestError(HTTPStatus.BAD_REQUEST, "the body ends early or never")
        return piece


def _missing_of_head(so_far: bytearray) -> int:
    if b"\r\n\r\n" in so_far:
        return 0
    if len(so_far) >= MOST_HEAD:
        large = text_response("head is too large", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        raise BadGreetingError("head of a request is too large", _encoded(large))
    return MOST_HEAD - len(so_far)


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


def _let_it_read(connection: socket.socket) -> None:
    """Wait a moment for the client to close: a reset would take the response away from it."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(1.0)
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline and connection.recv(PIECE):
            pass
