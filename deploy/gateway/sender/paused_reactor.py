"""A workaround for pynetdicom: pauses the reactor thread of an association that sends requests."""

from __future__ import annotations

import socket
import threading
from typing import Any

from pynetdicom import evt


class PausedReactor:
    """Pauses the reactor thread of an association from its connection until `end`.

    The reactor thread of pynetdicom 3.0.4 receives messages from the peer; it is paused while a
    request is under way. A thread that is just leaving its previous pause counts as paused,
    however, and may consume the response. The request then waits until its time-out; on a busy
    machine this happens to one of some hundred C-STOREs. The gateway sends one request after the
    other, so the thread is not needed.

    reactor = PausedReactor(timeout_s)
    association = entity.associate(..., evt_handlers=reactor.handlers)
    try: ...                          # send; release
    finally: reactor.end()            # the thread runs to its end
    """

    def __init__(self, timeout_s: float) -> None:
        """`timeout_s` is set on the socket: pynetdicom sets none after the connection is open."""
        self._timeout_s = timeout_s
        self._checkpoint = _ClosedCheckpoint()
        self.handlers: list[Any] = [(evt.EVT_CONN_OPEN, self._opened)]

    def end(self) -> None:
        """Let the reactor thread continue; it ends with the association."""
        self._checkpoint.open()

    def _opened(self, event: evt.Event) -> None:
        event.assoc._reactor_checkpoint = self._checkpoint
        transport = event.assoc.dul.socket
        assert transport is not None, "the connection was just opened"
        opened = transport.socket
        assert opened is not None, "the connection was just opened"
        opened.settimeout(self._timeout_s)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _ClosedCheckpoint(threading.Event):
    """The event at which the reactor waits; only `open` sets it, not the association."""

    def set(self) -> None:
        """Stay closed."""

    def clear(self) -> None:
        """Stay closed."""

    def open(self) -> None:
        """Let the reactor continue."""
        super().set()
