"""The receiver: C-STORE and C-ECHO from those who may send, straight into the spool.

It speaks the upper layer itself instead of through a library's reactor: what a peer declares is
bounded before anything is allocated, a data set never lies in memory as a whole, and a connection
costs a thread only once it has asked for an association with a name on the list.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from stillscan.deploy.gateway.heart import Heart
from stillscan.deploy.gateway.receiver.association import Association, Count
from stillscan.deploy.gateway.receiver.listener import (
    BadGreetingError,
    Caller,
    Guests,
    Listener,
    hang_up,
)
from stillscan.deploy.gateway.receiver.spool import Spool
from stillscan.deploy.gateway.receiver.upper_layer import (
    APPLICATION_CONTEXT,
    HEADER,
    PROTOCOL_VERSION,
    TOO_MANY,
    UNKNOWN_APPLICATION,
    UNKNOWN_CALLED,
    UNKNOWN_CALLING,
    UNKNOWN_PROTOCOL,
    Abort,
    AssociateRequest,
    Pdu,
    ProtocolError,
    Rejection,
    abort,
    associate_reject,
    parse_associate_request,
)
from stillscan.deploy.gateway.record.counters import Counters
from stillscan.deploy.gateway.record.overview import Overview
from stillscan.deploy.gateway.settings import GatewaySettings, Places, ReceiverSection

log = logging.getLogger("stillscan.gateway")


def run(settings: GatewaySettings, stop: threading.Event) -> None:
    """Receive until `stop` is set; then let running associations end, for `drain-s` at most.

    Raises:
        OSError: if the port or a certificate cannot be used.
    """
    places = Places(settings.data)
    spool = Spool(places, settings.storage)
    spool.sweep()
    with Counters(Overview(places)) as count:
        heart = Heart(places, "receiver")
        receiver = Receiver(settings.receiver, spool, count, heart.beat)
        log.info(
            "receiving as %s on %s:%d",
            settings.receiver.ae_title,
            settings.receiver.host,
            receiver.port,
        )
        receiver.serve(stop)


class Receiver:
    """The DICOM listener."""

    def __init__(
        self,
        settings: ReceiverSection,
        spool: Spool,
        count: Count,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """Listen; connections are served when `serve` runs, which calls `beat` every round.

        Raises:
            OSError: if the port or a certificate cannot be used.
        """
        self._settings = settings
        self._spool = spool
        self._count = count
        self._guests = Guests(settings.max_associations, settings.max_associations_per_host)
        self._listener = Listener(
            (settings.host, settings.port),
            self._greeting,
            self._admit,
            deadline_s=settings.negotiation_s,
            tls=settings.tls,
            dropped=lambda: count("connections_dropped", 1),
            beat=beat,
        )

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._listener.port

    def serve(self, stop: threading.Event) -> None:
        """Receive until `stop` is set and the running associations have ended."""
        self._listener.serve(stop)
        self._guests.see_out(self._settings.drain_s)

    def _greeting(self, so_far: bytearray) -> int:
        """An A-ASSOCIATE-RQ comes first, and is no longer than we take."""
        if len(so_far) < HEADER.size:
            return HEADER.size - len(so_far)
        kind, length = HEADER.unpack_from(so_far)
        if kind != Pdu.ASSOCIATE_RQ:
            reason = Abort.UNEXPECTED_PDU if kind in tuple(Pdu) else Abort.UNRECOGNIZED_PDU
            raise BadGreetingError(f"PDU of type {kind} before an association", abort(reason))
        if length > self._settings.max_pdu:
            raise BadGreetingError(
                f"association request of {length} bytes", abort(Abort.INVALID_PARAMETER)
            )
        return HEADER.size + length - len(so_far)

    def _admit(self, caller: Caller) -> None:
        try:
            request = parse_associate_request(memoryview(caller.greeting)[HEADER.size :])
        except ProtocolError as error:
            log.debug("association request from %s: %s", caller.host, error)
            self._count("connections_dropped", 1)
            hang_up(caller.connection, abort(error.reason))
            return
        rejection = self._rejection(request, caller.host)
        if rejection is None and not self._guests.welcome(
            caller, lambda caller: self._serve(caller, request)
        ):
            rejection = TOO_MANY
        if rejection is not None:
            log.warning(
                "association of %r from %s rejected: %s",
                request.calling,
                caller.host,
                rejection.name,
            )
            self._count("associations_rejected", 1)
            hang_up(caller.connection, associate_reject(rejection))

    def _rejection(self, request: AssociateRequest, host: str) -> Rejection | None:
        """Why this peer may not come in; None where it may."""
        settings = self._settings
        if not request.protocol_version & PROTOCOL_VERSION:
            return UNKNOWN_PROTOCOL
        if request.application_context != APPLICATION_CONTEXT:
            return UNKNOWN_APPLICATION
        if not settings.any_called_ae_title and request.called != settings.ae_title:
            return UNKNOWN_CALLED
        known = any(
            request.calling == peer.ae_title and (not peer.hosts or host in peer.hosts)
            for peer in settings.peers
        )
        return None if known or not settings.peers else UNKNOWN_CALLING

    def _serve(self, caller: Caller, request: AssociateRequest) -> None:
        self._count("associations_accepted", 1)

        def idle(is_idle: bool) -> None:
            caller.idle_since = time.monotonic() if is_idle else None

        association = Association(
            caller.connection, request, self._settings, self._spool, self._count, idle
        )
        ending = association.serve()
        if ending in ("aborted", "idle"):
            self._count("associations_aborted", 1)
        log.info(
            "association of %r from %s: %s after %d instances",
            request.calling,
            caller.host,
            ending,
            association.stored,
        )
