"""What pynetdicom's associations need where we are the one who asks."""

from __future__ import annotations

import socket
import threading
from typing import Any

from pynetdicom import evt


class QuietReactor:
    """Keeps an association's reactor out of the way of the thread that sends over it.

    pynetdicom 3.0.4 has a thread that looks for messages from the peer, and pauses it while a
    request is under way; but a thread that is just coming out of its last pause counts as paused,
    and takes the answer. The request then waits for its whole time-out: on a busy machine, one of
    some hundred C-STOREs. We ask one thing after the other, so the thread need not run at all.

    quiet = QuietReactor(timeout_s)
    association = entity.associate(..., evt_handlers=quiet.handlers)
    try: ...                          # send; release
    finally: quiet.end()              # the thread may run, to its end
    """

    def __init__(self, timeout_s: float) -> None:
        """`timeout_s` is of the connection: pynetdicom lets it block for ever once it stands."""
        self._timeout_s = timeout_s
        self._checkpoint = _ClosedCheckpoint()
        self.handlers: list[Any] = [(evt.EVT_CONN_OPEN, self._opened)]

    def end(self) -> None:
        """Let the reactor's thread run on: to its end, where the association is over."""
        self._checkpoint.open()

    def _opened(self, event: evt.Event) -> None:
        event.assoc._reactor_checkpoint = self._checkpoint
        transport = event.assoc.dul.socket
        assert transport is not None, "this connection has just been opened"
        opened = transport.socket
        assert opened is not None, "and is its socket"
        opened.settimeout(self._timeout_s)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _ClosedCheckpoint(threading.Event):
    """A checkpoint where the reactor waits until `open`, whatever the association does to it."""

    def set(self) -> None:
        """Stay closed."""

    def clear(self) -> None:
        """Stay closed."""

    def open(self) -> None:
        """Let the reactor pass from now on."""
        super().set()
