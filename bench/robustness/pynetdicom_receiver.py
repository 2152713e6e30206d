"""A receiver made of pynetdicom's own acceptor, for comparison with the gateway's.

python -m bench.robustness.pynetdicom_receiver PORT FOLDER

`python -m bench.robustness.network_abuse --pynetdicom` measures it. Data sets go to disk in pieces.
The number of associations is not limited: with a limit, silent connections would keep out everybody
else.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.events import Event

SUCCESS = 0x0000
VERIFICATION = "1.2.840.10008.1.1"


def store(event: Event, folder: Path) -> int:
    """Keep an instance on disk, synced, before it is acknowledged."""
    kept = event.dataset_path.rename(folder / event.dataset_path.name)
    with kept.open("rb") as file:
        os.fsync(file.fileno())
    return SUCCESS


def main() -> None:
    """Serve until the process is ended."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    _config.STORE_RECV_CHUNKED_DATASET = True
    entity = AE("STILLSCAN")
    entity.supported_contexts = AllStoragePresentationContexts
    entity.add_supported_context(VERIFICATION)
    entity.require_called_aet = True
    entity.maximum_associations = 10_000
    entity.maximum_pdu_size = 131_072
    entity.acse_timeout, entity.dimse_timeout, entity.network_timeout = 5, 60, 60
    entity.start_server(
        ("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, store, [folder])], block=True
    )


if __name__ == "__main__":
    main()
