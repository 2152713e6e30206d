"""A PACS with chosen faults: it refuses, aborts, is slow, or answers with a chosen status.

    pacs = UnreliablePacs(11113)
    pacs.plan = [Fault("abort", after=3), Fault("status", status=0xA700)]   # one per association

What it has taken is in `instances`; when the plan is at its end it takes everything.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, StoragePresentationContexts, evt
from pynetdicom.transport import ThreadedAssociationServer

SLOW_S = 0.05


@dataclass(frozen=True)
class Fault:
    """The fault of one association.

    Attributes:
        kind: `refuse` (the association), `abort`, `status`, `silence` (no answer), `slow`, `none`.
        after: so many instances are taken before.
        status: for `status`.
    """

    kind: str
    after: int = 0
    status: int = 0


class UnreliablePacs:
    """One C-STORE provider on loopback."""

    def __init__(self, port: int, ae_title: str = "UNRELIABLE") -> None:
        """Start to listen."""
        self.port = port
        self.ae_title = ae_title
        self.plan: list[Fault] = []
        self.instances: dict[str, set[str]] = defaultdict(set)
        self.times_stored: dict[str, int] = defaultdict(int)
        self.silence_s = 60.0
        self._faults: dict[int, tuple[Fault, int]] = {}
        self._lock = threading.Lock()
        self._server: ThreadedAssociationServer | None = None
        self.listen()

    def listen(self) -> None:
        """Open the port."""
        entity = AE(ae_title=self.ae_title)
        for context in StoragePresentationContexts:
            if context.abstract_syntax is not None:
                entity.add_supported_context(context.abstract_syntax, ExplicitVRLittleEndian)
        self._entity = entity
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, self._opened),
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_C_STORE, self._store),
        ]
        server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        assert server is not None, "it does not block"
        self._server = server

    def close(self) -> None:
        """Close the port, so that it cannot be reached."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _opened(self, event: evt.Event) -> None:
        with self._lock:
            fault = self.plan.pop(0) if self.plan else Fault("none")
            self._faults[id(event.assoc)] = (fault, 0)

    def _requested(self, event: evt.Event) -> None:
        fault, _ = self._faults[id(event.assoc)]
        # the server reads this title right after this
        event.assoc.ae.require_calling_aet = ["NOBODY"] if fault.kind == "refuse" else []

    def _store(self, event: evt.Event) -> int:
        with self._lock:
            fault, taken = self._faults[id(event.assoc)]
            self._faults[id(event.assoc)] = (fault, taken + 1)
        if taken >= fault.after:
            if fault.kind == "abort":
                event.assoc.abort()
                return 0xC000
            if fault.kind == "silence":
                time.sleep(self.silence_s)
            if fault.kind == "slow":
                time.sleep(SLOW_S)
            if fault.kind == "status" and fault.status not in (0xB000, 0xB006, 0xB007):
                return fault.status
        dataset = event.dataset
        with self._lock:
            self.instances[str(dataset.SeriesInstanceUID)].add(str(dataset.SOPInstanceUID))
            self.times_stored[str(dataset.SOPInstanceUID)] += 1
        return fault.status if fault.kind == "status" else 0x0000
