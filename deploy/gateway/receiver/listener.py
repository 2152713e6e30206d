"""Who may come in: one thread that waits for every caller until it has said what it wants.

A connection costs a file descriptor and a few bytes until its greeting is complete (over DICOM the
association request, over HTTP the request's head); only then is it handed on and gets a thread. So
connections that say nothing, or say it slowly, delay no other: each has a deadline, and when too
many are waiting the host that has most of them loses its oldest.
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

MOST_WAITING = 256
BACKLOG = 128
TICK_S = 0.25  # how late a deadline or a stop may be noticed
WAIT_WITHOUT_DESCRIPTORS_S = 0.1
IDLE_FOR_ROOM_S = 2.0  # a connection that is idle for so long may be ended for another
LEAVING_S = 1.0  # for a thread whose connection was closed


class BadGreetingError(Exception):
    """What came is no greeting; `answer` is sent before the connection is closed."""

    def __init__(self, message: str, answer: bytes = b"") -> None:
        """`message` is for the log."""
        super().__init__(message)
        self.answer = answer


class Greeting(Protocol):
    """How much of a greeting is still to come."""

    def __call__(self, so_far: bytearray) -> int:
        """At most how many bytes are to be read now; 0 where the greeting is complete.

        Raises:
            BadGreetingError: if it is none.
        """


@dataclass
class Caller:
    """A connection whose greeting is complete.

    Attributes:
        connection: blocking; it is closed by whatever takes the connection.
        host: address that it comes from.
        greeting: all that was read.
        idle_since: when it last had nothing to be done for it, monotonic; None while it has.
    """

    connection: socket.socket
    host: str
    greeting: bytes
    idle_since: float | None = None


@dataclass
class _Waiting:
    """A connection that has not yet said what it wants."""

    connection: socket.socket
    host: str
    deadline: float
    said: bytearray = field(default_factory=bytearray)
    shaken: bool = True  # False during a TLS handshake


class Listener:
    """Accepts connections and hands them on when their greeting is complete."""

    def __init__(
        self,
        address: tuple[str, int],
        greeting: Greeting,
        admit: Callable[[Caller], None],
        *,
        deadline_s: float,
        tls: Tls | None = None,
        dropped: Callable[[], None] = lambda: None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """Listen at once.

        Args:
            address: host and port; port 0 takes any that is free, see `port`.
            greeting: how a greeting of the protocol ends.
            admit: takes a caller; it must not block.
            deadline_s: from the connection to the end of the greeting, TLS handshake included.
            tls: certificates; None: plain TCP.
            dropped: called for every connection that is closed without a greeting.
            beat: called every round: the listener is alive.

        Raises:
            OSError: if the address or a certificate cannot be used.
        """
        self._context = server_context(tls) if tls else None
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.create_server(address, family=family, backlog=BACKLOG)
        self._socket.setblocking(False)
        self._greeting, self._admit, self._dropped = greeting, admit, dropped
        self._beat = beat
        self._deadline_s = deadline_s
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._waiting: dict[socket.socket, _Waiting] = {}  # oldest first

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._socket.getsockname()[1])

    def serve(self, stop: threading.Event) -> None:
        """Wait for callers until `stop` is set, then close the port and what is still waiting."""
        try:
            while not stop.is_set():
                self._beat()
                for key, _ in self._selector.select(TICK_S):
                    if key.fileobj is self._socket:
                        self._accept()
                    elif key.fileobj in self._waiting:
                        self._go_on_alone(self._waiting[key.fileobj])
                self._end_those_late()
        finally:
            for waiting in list(self._waiting.values()):
                self._drop(waiting, "the gateway stops")
            self._selector.close()
            self._socket.close()

    def _accept(self) -> None:
        try:
            connection, address = self._socket.accept()
        except OSError as error:  # gone again, or no file descriptor is left
            log.warning("a connection could not be accepted: %s", error.strerror)
            time.sleep(WAIT_WITHOUT_DESCRIPTORS_S)
            return
        if len(self._waiting) >= MOST_WAITING:
            self._make_room()
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
        waiting.shaken = self._context is None
        self._waiting[connection] = waiting
        self._selector.register(connection, selectors.EVENT_READ)

    def _go_on_alone(self, waiting: _Waiting) -> None:
        """Whatever a greeting makes of us, it concerns its connection alone."""
        try:
            with setting_aside():
                self._go_on(waiting)
        except InternalFaultError as error:
            log.error("connection from %s: %s: %s", waiting.host, error.reason, error)
            if waiting.connection in self._waiting:
                self._drop(waiting, error.reason)
            else:
                hang_up(waiting.connection)

    def _go_on(self, waiting: _Waiting) -> None:
        """Read what there is of the greeting."""
        try:
            if not waiting.shaken:
                assert isinstance(waiting.connection, ssl.SSLSocket)
                waiting.connection.do_handshake()
                waiting.shaken = True
            while wanted := self._greeting(waiting.said):
                piece = waiting.connection.recv(wanted)
                if not piece:
                    self._leave_alone(waiting)
                    return
                waiting.said += piece
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except ssl.SSLWantWriteError:
            return  # a handshake's few bytes find room: the next event comes with the answer
        except BadGreetingError as error:
            self._drop(waiting, str(error), error.answer)
            return
        except ssl.SSLEOFError:
            self._leave_alone(waiting)
            return
        except OSError as error:  # also a failed handshake
            self._drop(waiting, error.strerror or type(error).__name__)
            return
        self._leave(waiting)
        waiting.connection.setblocking(True)
        self._admit(Caller(waiting.connection, waiting.host, bytes(waiting.said)))

    def _end_those_late(self) -> None:
        now = time.monotonic()
        for waiting in list(self._waiting.values()):
            if waiting.deadline > now:
                return  # all have the same time, so the rest came later
            self._drop(waiting, "said nothing in time")

    def _make_room(self) -> None:
        hosts = Counter(each.host for each in self._waiting.values())
        most = hosts.most_common(1)[0][0]
        oldest = next(each for each in self._waiting.values() if each.host == most)
        self._drop(oldest, "too many connections are waiting")

    def _drop(self, waiting: _Waiting, why: str, answer: bytes = b"") -> None:
        log.debug("connection from %s dropped: %s", waiting.host, why)  # counted, not reported
        self._leave(waiting)
        hang_up(waiting.connection, answer)
        self._dropped()

    def _leave_alone(self, waiting: _Waiting) -> None:
        """Close what the other side closed; without a word it only looked whether we are here."""
        if waiting.said:
            self._drop(waiting, "closed before it said what it wants")
        else:
            self._leave(waiting)
            hang_up(waiting.connection)

    def _leave(self, waiting: _Waiting) -> None:
        self._selector.unregister(waiting.connection)
        del self._waiting[waiting.connection]


class Guests:
    """Callers that were let in: each has a thread, and there are only so many."""

    def __init__(self, most: int, most_per_host: int) -> None:
        """Limits at the same time, in all and for each host."""
        self._most, self._most_per_host = most, most_per_host
        self._guests: dict[threading.Thread, Caller] = {}
        self._lock = threading.Lock()

    def welcome(self, caller: Caller, serve: Callable[[Caller], None]) -> bool:
        """Serve a caller in a thread of its own; False where there are too many already.

        Where its host, or all hosts, have as many as they may, one that is idle makes room.
        """
        with self._lock:
            guests = list(self._guests.values())
            same_host = [each for each in guests if each.host == caller.host]
            if len(same_host) >= self._most_per_host:
                guests = same_host
            elif len(guests) < self._most:
                guests = []
            if guests and not _make_room_among(guests):
                return False
            thread = threading.Thread(target=self._serve, args=(caller, serve), daemon=True)
            self._guests[thread] = caller
        thread.start()
        return True

    def __len__(self) -> int:
        """How many there are now."""
        with self._lock:
            return len(self._guests)

    def see_out(self, patience_s: float) -> None:
        """Wait until all have left; after `patience_s` close the connections of the rest."""
        deadline = time.monotonic() + patience_s
        for thread in self._now():
            thread.join(max(0.0, deadline - time.monotonic()))
        late = self._now()
        for caller in late.values():
            hang_up(caller.connection)
        for thread in late:
            thread.join(LEAVING_S)

    def _now(self) -> dict[threading.Thread, Caller]:
        with self._lock:
            return dict(self._guests)

    def _serve(self, caller: Caller, serve: Callable[[Caller], None]) -> None:
        try:
            with setting_aside(OSError):
                serve(caller)
        except InternalFaultError as error:  # it concerns this caller alone
            log.error("connection from %s: %s: %s", caller.host, error.reason, error)
        except OSError as error:
            log.debug("connection from %s ended early: %s", caller.host, error.strerror)
        finally:
            hang_up(caller.connection)
            with self._lock:
                del self._guests[threading.current_thread()]


def _make_room_among(guests: list[Caller]) -> bool:
    """End the connection that has been idle for longest; False where none has been for a while."""
    idle = [(each.idle_since, each) for each in guests if each.idle_since is not None]
    since, longest = min(idle, key=lambda each: each[0], default=(math.inf, None))
    if longest is None or time.monotonic() - since < IDLE_FOR_ROOM_S:
        return False
    longest.idle_since = None  # its room is given to one caller
    with suppress(OSError):
        longest.connection.shutdown(socket.SHUT_RDWR)  # its thread sees that and leaves
    return True


def hang_up(connection: socket.socket, answer: bytes = b"") -> None:
    """Close a connection, after a last word if there is one; a peer that is gone does not matter.

    Unread data from the peer makes the kernel reset the connection, and the peer may
    then lose the last word: so some of it is read first.
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
    """What a server does with its certificates; with an authority, clients must show theirs too.

    Raises:
        OSError: if a file cannot be read or is no certificate (ssl.SSLError is an OSError).
        ValueError: if there is no certificate of our own.
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
