"""Accepts connections; a session gets a thread only after its first message is complete.

The first message is the association request (DICOM) or the head of the request (HTTP). Until it is
complete a connection costs a file descriptor and a few bytes, and one thread reads all of these
connections. Silent or slow peers therefore do not delay others: each connection has a deadline, and
when too many are pending, the oldest connection of the host that has most of them is closed.
"""

from __future__ import annotations

import logging
import math
import selectors
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from stillscan.deploy.gateway.settings import Tls
from stillscan.operators.internal_fault import InternalFaultError, setting_aside

log = logging.getLogger("stillscan.gateway")

MAX_WAITING = 256
BACKLOG = 128
TICK_S = 0.25  # maximum delay until a deadline or a stop is noticed
WAIT_WITHOUT_DESCRIPTORS_S = 0.1
REPLACEABLE_S = 2.0  # a connection that is idle for so long may be closed in favour of a new one
JOIN_S = 1.0  # time limit for the thread of a closed connection to end


class BadFirstMessageError(Exception):
    """The first message is invalid; `answer` is sent before the connection is closed."""

    def __init__(self, message: str, answer: bytes = b"") -> None:
        """`message` is for the log."""
        super().__init__(message)
        self.answer = answer


class BytesMissing(Protocol):
    """Tells how many bytes of the first message of a connection are missing."""

    def __call__(self, so_far: bytearray) -> int:
        """Maximum number of bytes to read next; 0 if the first message is complete.

        Raises:
            BadFirstMessageError: if the bytes do not begin a valid first message.
        """


@dataclass
class Connection:
    """A connection whose first message is complete.

    Attributes:
        sock: blocking socket; the code that takes over the connection closes it.
        host: address of the peer.
        first_message: everything that was read so far.
        idle_since: since when no request is under way (monotonic clock); None while one is.
    """

    sock: socket.socket
    host: str
    first_message: bytes
    idle_since: float | None = None


@dataclass
class _Waiting:
    """A connection whose first message is not complete yet."""

    sock: socket.socket
    host: str
    deadline: float
    received: bytearray = field(default_factory=bytearray)
    tls_ready: bool = True  # False during a TLS handshake


class Listener:
    """Accepts connections and passes them on when their first message is complete."""

    def __init__(
        self,
        address: tuple[str, int],
        bytes_missing: BytesMissing,
        admit: Callable[[Connection], None],
        *,
        deadline_s: float,
        tls: Tls | None = None,
        dropped: Callable[[], None] = lambda: None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """Listen at once.

        Args:
            address: host and port; port 0 chooses a free port, see `port`.
            bytes_missing: recognises the end of a first message of the protocol.
            admit: takes over a connection; it must not block.
            deadline_s: time limit for the first message, TLS handshake included.
            tls: certificates; None: plain TCP.
            dropped: called when a connection is closed before its first message is complete.
            beat: called in every round of the loop, for the heartbeat.

        Raises:
            OSError: if the address or a certificate cannot be used.
        """
        self._context = server_context(tls) if tls else None
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.create_server(address, family=family, backlog=BACKLOG)
        self._socket.setblocking(False)
        self._bytes_missing, self._admit, self._dropped = bytes_missing, admit, dropped
        self._beat = beat
        self._deadline_s = deadline_s
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._waiting: dict[socket.socket, _Waiting] = {}  # oldest first

    @property
    def port(self) -> int:
        """The port of the listening socket."""
        return int(self._socket.getsockname()[1])

    def serve(self, stop: threading.Event) -> None:
        """Accept connections until `stop` is set, then close the port and pending connections."""
        try:
            while not stop.is_set():
                self._beat()
                for key, _ in self._selector.select(TICK_S):
                    if key.fileobj is self._socket:
                        self._accept()
                    elif key.fileobj in self._waiting:
                        self._read_safely(self._waiting[key.fileobj])
                self._drop_expired()
        finally:
            for waiting in list(self._waiting.values()):
                self._drop(waiting, "the gateway is stopping")
            self._selector.close()
            self._socket.close()

    def _accept(self) -> None:
        try:
            connection, address = self._socket.accept()
        except OSError as error:  # already closed by the peer, or no file descriptor is left
            log.warning("a connection could not be accepted: %s", error.strerror)
            time.sleep(WAIT_WITHOUT_DESCRIPTORS_S)
            return
        if len(self._waiting) >= MAX_WAITING:
            self._drop_oldest()
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context:
                connection = self._context.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
        except OSError:  # it was reset in the meantime
            connection.close()
            return
        waiting = _Waiting(connection, address[0], time.monotonic() + self._deadline_s)
        waiting.tls_ready = self._context is None
        self._waiting[connection] = waiting
        self._selector.register(connection, selectors.EVENT_READ)

    def _read_safely(self, waiting: _Waiting) -> None:
        """Read from a connection; a bug while doing so closes this connection only."""
        try:
            with setting_aside():
                self._read(waiting)
        except InternalFaultError as error:
            log.error("connection from %s: %s: %s", waiting.host, error.reason, error)
            if waiting.sock in self._waiting:
                self._drop(waiting, error.reason)
            else:
                close_socket(waiting.sock)

    def _read(self, waiting: _Waiting) -> None:
        """Read the available bytes of the first message; pass the connection on if complete."""
        try:
            if not waiting.tls_ready:
                assert isinstance(waiting.sock, ssl.SSLSocket)
                waiting.sock.do_handshake()
                waiting.tls_ready = True
            while wanted := self._bytes_missing(waiting.received):
                piece = waiting.sock.recv(wanted)
                if not piece:
                    self._closed_by_peer(waiting)
                    return
                waiting.received += piece
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except ssl.SSLWantWriteError:
            return  # the few bytes of a handshake fit the send buffer: wait for the peer's answer
        except BadFirstMessageError as error:
            self._drop(waiting, str(error), error.answer)
            return
        except ssl.SSLEOFError:
            self._closed_by_peer(waiting)
            return
        except OSError as error:  # also a failed handshake
            self._drop(waiting, error.strerror or type(error).__name__)
            return
        self._forget(waiting)
        waiting.sock.setblocking(True)
        self._admit(Connection(waiting.sock, waiting.host, bytes(waiting.received)))

    def _drop_expired(self) -> None:
        now = time.monotonic()
        for waiting in list(self._waiting.values()):
            if waiting.deadline > now:
                return  # all have the same time limit, so the following ones expire later
            self._drop(waiting, "no complete first message in time")

    def _drop_oldest(self) -> None:
        hosts = Counter(each.host for each in self._waiting.values())
        most = hosts.most_common(1)[0][0]
        oldest = next(each for each in self._waiting.values() if each.host == most)
        self._drop(oldest, "too many pending connections")

    def _drop(self, waiting: _Waiting, why: str, answer: bytes = b"") -> None:
        log.debug("connection from %s dropped: %s", waiting.host, why)  # the metric counts these
        self._forget(waiting)
        close_socket(waiting.sock, answer)
        self._dropped()

    def _closed_by_peer(self, waiting: _Waiting) -> None:
        """Close the socket; a connection without a single byte was a port check, not a fault."""
        if waiting.received:
            self._drop(waiting, "closed by the peer before its first message was complete")
        else:
            self._forget(waiting)
            close_socket(waiting.sock)

    def _forget(self, waiting: _Waiting) -> None:
        self._selector.unregister(waiting.sock)
        del self._waiting[waiting.sock]


class Sessions:
    """Connections that are being served, each in its own thread; their number is limited."""

    def __init__(self, limit: int, limit_per_host: int) -> None:
        """Maximum number of simultaneous sessions, in total and per host."""
        self._limit, self._limit_per_host = limit, limit_per_host
        self._sessions: dict[threading.Thread, Connection] = {}
        self._lock = threading.Lock()

    def start(self, connection: Connection, serve: Callable[[Connection], None]) -> bool:
        """Serve a connection in its own thread; False if a limit is reached.

        At a limit, the session that has been idle for longest is closed in favour of the new one.
        """
        with self._lock:
            sessions = list(self._sessions.values())
            same_host = [each for each in sessions if each.host == connection.host]
            if len(same_host) >= self._limit_per_host:
                sessions = same_host
            elif len(sessions) < self._limit:
                sessions = []
            if sessions and not _close_longest_idle(sessions):
                return False
            thread = threading.Thread(target=self._serve, args=(connection, serve), daemon=True)
            self._sessions[thread] = connection
        thread.start()
        return True

    def __len__(self) -> int:
        """Number of sessions at the moment."""
        with self._lock:
            return len(self._sessions)

    def drain(self, patience_s: float) -> None:
        """Wait for all sessions to end; after `patience_s` close the remaining connections."""
        deadline = time.monotonic() + patience_s
        for thread in self._now():
            thread.join(max(0.0, deadline - time.monotonic()))
        late = self._now()
        for connection in late.values():
            close_socket(connection.sock)
        for thread in late:
            thread.join(JOIN_S)

    def _now(self) -> dict[threading.Thread, Connection]:
        with self._lock:
            return dict(self._sessions)

    def _serve(self, connection: Connection, serve: Callable[[Connection], None]) -> None:
        try:
            with setting_aside(OSError):
                serve(connection)
        except InternalFaultError as error:  # only this connection is closed
            log.error("connection from %s: %s: %s", connection.host, error.reason, error)
        except OSError as error:
            log.debug("connection from %s ended early: %s", connection.host, error.strerror)
        finally:
            close_socket(connection.sock)
            with self._lock:
                del self._sessions[threading.current_thread()]


def _close_longest_idle(sessions: list[Connection]) -> bool:
    """Close the connection that has been idle for longest; False if none may be replaced."""
    idle = [(each.idle_since, each) for each in sessions if each.idle_since is not None]
    since, longest = min(idle, key=lambda each: each[0], default=(math.inf, None))
    if longest is None or time.monotonic() - since < REPLACEABLE_S:
        return False
    longest.idle_since = None  # it makes room for one new connection only
    with suppress(OSError):
        longest.sock.shutdown(socket.SHUT_RDWR)  # its thread notices the end of the stream
    return True


def close_socket(connection: socket.socket, answer: bytes = b"") -> None:
    """Send a last answer, if there is one, and close the connection; errors of it are ignored.

    If data from the peer is unread, the kernel resets the connection and the peer may lose the
    answer; so some of the data is read first.
    """
    with suppress(OSError):
        if answer:
            connection.settimeout(0.0)
            connection.send(answer)
            connection.recv(2**16)
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def server_context(tls: Tls) -> ssl.SSLContext:
    """TLS context of a server; with an authority, clients need a certificate signed by it.

    Raises:
        OSError: if a file cannot be read or is not a certificate (ssl.SSLError is an OSError).
        ValueError: if the settings have no certificate.
    """
    if tls.certificate is None:
        raise ValueError("a TLS server needs 'certificate' and 'key'")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # BCP 195, PS3.15 B.12
    context.load_cert_chain(tls.certificate, tls.key)
    if tls.authority is not None:
        context.load_verify_locations(tls.authority)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
