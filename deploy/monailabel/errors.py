"""Errors of requests to the MONAI Label server; each has a reason code."""

from __future__ import annotations

from stillscan.operators.errors import InputError, SettingsError


class UnsupportedFileError(InputError):
    """The image is in a format that is not read here."""

    reason = "unsupported-file"


class NotChosenError(InputError):
    """The selection rules of the settings do not choose the series."""

    reason = "not-selected"


class NotDerivedError(InputError):
    """No derived series could be made; the message begins with the reason of the application."""

    reason = "not-derived"


class RequestError(SettingsError):
    """A parameter of the request has a value that it cannot have."""

    reason = "bad-request"


class NotStoredError(InputError):
    """The derived series cannot be stored: the image is not in a DICOMweb server."""

    reason = "no-dicomweb"
