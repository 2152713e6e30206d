"""One derived series goes to one destination: as a whole, or again as a whole.

What has arrived before an attempt failed has the same UIDs the next time, so that nothing is there
twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stillscan.deploy.gateway.sender.errors import DeliveryFailedError
from stillscan.deploy.gateway.settings import Destination


def deliver(destination: Destination, files: Sequence[Path], timeout_s: float) -> str:
    """Send all files to a destination.

    Args:
        destination: where to.
        files: Part 10 files, each in a folder that is named by its SeriesInstanceUID.
        timeout_s: of a connection, and of each answer.

    Returns:
        What the destination remarked on what it took, "" for nothing.

    Raises:
        DeliveryFailedError: if not every instance is known to have arrived.
    """
    # each kind imports its own library
    if not files:
        raise DeliveryFailedError("nothing-to-send", "the derived series is no longer there")
    if destination.kind == "c-store":
        from stillscan.deploy.gateway.sender.c_store import store_over_dimse

        return store_over_dimse(destination, files, timeout_s)
    if destination.kind == "stow-rs":
        from stillscan.deploy.gateway.sender.stow import store_over_the_web

        return store_over_the_web(destination, files, timeout_s)
    from stillscan.deploy.gateway.sender.folder import store_in_folder

    return store_in_folder(destination, files)
