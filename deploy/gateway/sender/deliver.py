"""Delivers one derived series to one destination; after a failure the whole series is sent again.

UIDs do not change between attempts, so a repeated attempt creates no duplicates at the destination.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stillscan.deploy.gateway.sender.errors import DeliveryFailedError
from stillscan.deploy.gateway.settings import Destination


def deliver(destination: Destination, files: Sequence[Path], timeout_s: float) -> str:
    """Send all files to a destination.

    Args:
        destination: the destination.
        files: DICOM files (PS3.10), each in a folder named by its SeriesInstanceUID.
        timeout_s: time limit for a connection and for each response.

    Returns:
        Warnings of the destination, "" if there are none.

    Raises:
        DeliveryFailedError: if the destination did not acknowledge every instance.
    """
    # imported here: each kind of destination needs another library
    if not files:
        raise DeliveryFailedError(
            "nothing-to-send", "the derived series is no longer in the outbox"
        )
    if destination.kind == "c-store":
        from stillscan.deploy.gateway.sender.c_store import store_over_dimse

        return store_over_dimse(destination, files, timeout_s)
    if destination.kind == "stow-rs":
        from stillscan.deploy.gateway.sender.stow import store_over_the_web

        return store_over_the_web(destination, files, timeout_s)
    from stillscan.deploy.gateway.sender.folder import store_in_folder

    return store_in_folder(destination, files)
