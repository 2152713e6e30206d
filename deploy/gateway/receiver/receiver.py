"""The receiver process: C-STORE and C-ECHO from permitted peers; instances go to the spool.

It implements the DICOM upper layer itself (docs/operations.md has the measurements behind that):
lengths that a peer declares are checked before anything is allocated, a data set is never held in
memory as a whole, and a connection gets a thread only after an association request whose AE titles
are permitted.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable

from stillscan.deploy.gateway.heartbeat import Heartbeat
from stillscan.deploy.gateway.receiver.association import Association, Count, Report
from stillscan.deploy.gateway.receiver.listener import (
    BadFirstMessageError,
    Connection,
    Listener,
    Sessions,
    close_socket,
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
from stillscan.deploy.gateway.record.commitments import commitment_report
from stillscan.deploy.gateway.record.counters import Counters
from stillscan.deploy.gateway.record.database import Database
from stillscan.deploy.gateway.record.deliveries import Outbox
from stillscan.deploy.gateway.record.overview import Overview
from stillscan.deploy.gateway.settings import GatewaySettings, Places, ReceiverSection
from stillscan.operators.internal_fault import InternalFaultError, setting_aside

log = logging.getLogger("stillscan.gateway")


def run(settings: GatewaySettings, stop: threading.Event) -> None:
    """Receive until `stop` is set; then wait up to `drain-s` for open associations to end.

    Raises:
        OSError: if the port or a certificate cannot be used.
    """
    places = Places(settings.data)
    spool = Spool(places, settings.storage)
    spool.sweep()
    report = reports_to(Outbox(Database(places.database), settings.sender), settings)
    with Counters(Overview(places)) as count:
        heartbeat = Heartbeat(places, "receiver")
        receiver = Receiver(settings.receiver, spool, count, heartbeat.beat, report)
        log.info(
            "receiving as %s on %s:%d",
            settings.receiver.ae_title,
            settings.receiver.host,
            receiver.port,
        )
        receiver.serve(stop)


def reports_to(outbox: Outbox, settings: GatewaySettings) -> Report:
    """Takes reports of storage commitment into the record of deliveries."""
    notes_to = {each.name for each in settings.destinations if each.rejection_notes}

    def report(encoded: bytes, syntax: str) -> bool:
        try:
            with setting_aside(sqlite3.OperationalError):
                return outbox.reported(commitment_report(encoded, syntax), notes_to)
        except (InternalFaultError, sqlite3.OperationalError) as error:
            log.warning("report of storage commitment: %s", error)  # the peer may send it again
            return False

    return report


class Receiver:
    """The DICOM listener."""

    def __init__(
        self,
        settings: ReceiverSection,
        spool: Spool,
        count: Count,
        beat: Callable[[], None] = lambda: None,
        report: Report = lambda encoded, syntax: False,
    ) -> None:
        """Open the port; `serve` accepts connections and calls `beat` in every round of its loop.

        `report` takes the reports of storage commitment.

        Raises:
            OSError: if the port or a certificate cannot be used.
        """
        self._settings = settings
        self._spool = spool
        self._count = count
        self._report = report
        self._sessions = Sessions(settings.max_associations, settings.max_associations_per_host)
        self._listener = Listener(
            (settings.host, settings.port),
            self._bytes_missing,
            self._admit,
            deadline_s=settings.negotiation_s,
            tls=settings.tls,
            dropped=lambda: count("connections_dropped", 1),
            beat=beat,
        )

    @property
    def port(self) -> int:
        """The port of the listening socket."""
        return self._listener.port

    def serve(self, stop: threading.Event) -> None:
        """Receive until `stop` is set and the open associations have ended."""
        self._listener.serve(stop)
        self._sessions.drain(self._settings.drain_s)

    def _bytes_missing(self, so_far: bytearray) -> int:
        """Bytes that are missing of the A-ASSOCIATE-RQ, which must come first."""
        if len(so_far) < HEADER.size:
            return HEADER.size - len(so_far)
        kind, length = HEADER.unpack_from(so_far)
        if kind != Pdu.ASSOCIATE_RQ:
            reason = Abort.UNEXPECTED_PDU if kind in tuple(Pdu) else Abort.UNRECOGNIZED_PDU
            raise BadFirstMessageError(f"PDU of type {kind} before an association", abort(reason))
        if length > self._settings.max_pdu:
            raise BadFirstMessageError(
                f"association request of {length} bytes", abort(Abort.INVALID_PARAMETER)
            )
        return HEADER.size + length - len(so_far)

    def _admit(self, connection: Connection) -> None:
        try:
            request = parse_associate_request(memoryview(connection.first_message)[HEADER.size :])
        except ProtocolError as error:
            log.debug("association request from %s: %s", connection.host, error)
            self._count("connections_dropped", 1)
            close_socket(connection.sock, abort(error.reason))
            return
        rejection = self._rejection(request, connection.host)
        if rejection is None and not self._sessions.start(
            connection, lambda connection: self._serve(connection, request)
        ):
            rejection = TOO_MANY
        if rejection is not None:
            log.warning(
                "association of %r from %s rejected: %s",
                request.calling,
                connection.host,
                rejection.name,
            )
            self._count("associations_rejected", 1)
            close_socket(connection.sock, associate_reject(rejection))

    def _rejection(self, request: AssociateRequest, host: str) -> Rejection | None:
        """Why this association is rejected; None if it is accepted."""
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

    def _serve(self, connection: Connection, request: AssociateRequest) -> None:
        self._count("associations_accepted", 1)

        def idle(is_idle: bool) -> None:
            connection.idle_since = time.monotonic() if is_idle else None

        association = Association(
            connection.sock, request, self._settings, self._spool, self._count, idle, self._report
        )
        ending = association.serve()
        if ending in ("aborted", "idle"):
            self._count("associations_aborted", 1)
        log.info(
            "association of %r from %s: %s after %d instances",
            request.calling,
            connection.host,
            ending,
            association.stored,
        )
