"""Delivery by C-STORE: one association per series; the first failed instance ends the attempt."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.status import code_to_category

from stillscan.deploy.gateway.sender.errors import DeliveryFailedError
from stillscan.deploy.gateway.sender.paused_reactor import PausedReactor
from stillscan.deploy.gateway.sender.tls import client_context
from stillscan.deploy.gateway.settings import MAX_PDU, Destination

# Send the files as they are: data sets are neither parsed nor held in memory as a whole.
_config.STORE_SEND_CHUNKED_DATASET = True

MAX_CONTEXTS = 128  # presentation context IDs are odd numbers up to 255 (PS3.8 9.3.2.2)


def store_over_dimse(destination: Destination, files: Sequence[Path], timeout_s: float) -> str:
    """Store files with C-STORE; arguments, result and errors as in `deliver.deliver`."""
    reactor = PausedReactor(timeout_s)
    association = associate(destination, _contexts_of(files), timeout_s, reactor.handlers)
    try:
        remarks = [
            _store(association, file, f"instance {number} of {len(files)}", timeout_s)
            for number, file in enumerate(files, start=1)
        ]
        association.release()
    except DeliveryFailedError:
        reactor.end()
        if association.is_established:
            association.abort()
        raise
    finally:
        reactor.end()
    remarked = [each for each in remarks if each]
    return f"{remarked[0]} ({len(remarked)} of {len(files)} instances)" if remarked else ""


def _contexts_of(files: Sequence[Path]) -> list[PresentationContext]:
    """Presentation contexts for the SOP classes and transfer syntaxes of the files."""
    kinds: set[tuple[str, str]] = set()
    for file in files:
        meta = read_file_meta_info(file)
        kinds.add((str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)))
    return [build_context(*kind) for kind in sorted(kinds)][:MAX_CONTEXTS]


def associate(
    destination: Destination,
    contexts: list[PresentationContext],
    timeout_s: float,
    handlers: list[Any],
) -> Association:
    """Open an association with a destination.

    Raises:
        DeliveryFailedError: if it does not accept the association or any presentation context.
    """
    entity = AE(ae_title=destination.calling_ae_title)
    entity.connection_timeout = timeout_s
    entity.acse_timeout = timeout_s
    entity.dimse_timeout = timeout_s
    entity.network_timeout = timeout_s
    entity.maximum_pdu_size = MAX_PDU
    context = client_context(destination.tls) if destination.tls is not None else None

    association = entity.associate(
        destination.host,
        destination.port,
        contexts=contexts,
        ae_title=destination.ae_title,
        tls_args=None if context is None else (context, destination.host),
        evt_handlers=handlers,
    )
    if association.is_established:
        return association
    where = f"{destination.ae_title} at {destination.host}:{destination.port}"
    if association.is_rejected:
        answer = association.acceptor.primitive
        why = "" if answer is None else f": {answer.reason_str.lower()}"
        raise DeliveryFailedError("association-rejected", f"{where} rejected the association{why}")
    if association.rejected_contexts:
        raise DeliveryFailedError("not-accepted", f"{where} accepts none of the SOP classes")
    if association.is_aborted and association.acceptor.primitive is not None:
        raise DeliveryFailedError("association-aborted", f"{where} aborted the association request")
    raise DeliveryFailedError("unreachable", f"{where} cannot be reached, or does not answer")


def _store(association: Association, file: Path, which: str, timeout_s: float) -> str:
    """Store one instance; returns the warning status of the response, or ""."""
    asked = time.monotonic()
    try:
        answer = association.send_c_store(file)
    except ValueError as error:
        raise DeliveryFailedError(
            "not-accepted", f"no accepted presentation context for {which}"
        ) from error
    except RuntimeError as error:
        raise DeliveryFailedError("association-aborted", f"ended before {which}") from error
    if "Status" not in answer:
        if time.monotonic() - asked < timeout_s:
            raise DeliveryFailedError("association-aborted", f"ended at {which}")
        raise DeliveryFailedError("no-answer", f"no response in time to {which}")
    status = int(answer.Status)
    category = code_to_category(status)
    if category == "Success":
        return ""
    if category == "Warning":
        return f"warning {status:04X}"
    raise DeliveryFailedError(f"status-{status:04x}", f"status 0x{status:04X} for {which}")
