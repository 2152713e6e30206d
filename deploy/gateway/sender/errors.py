"""The error of a failed delivery."""

from __future__ import annotations


class DeliveryFailedError(Exception):
    """An attempt at a delivery failed; `reason` is a stable code."""

    def __init__(self, reason: str, message: str) -> None:
        """`message` describes the fault, without patient data."""
        super().__init__(message)
        self.reason = reason
