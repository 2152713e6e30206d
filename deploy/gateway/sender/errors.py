"""Why a delivery failed."""

from __future__ import annotations


class DeliveryFailedError(Exception):
    """An attempt failed; `reason` is a stable code."""

    def __init__(self, reason: str, message: str) -> None:
        """`message` says what the destination did; no patient data."""
        super().__init__(message)
        self.reason = reason
