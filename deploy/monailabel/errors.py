"""Errors of requests to the MONAI Label server; each has a reason code."""

from __future__ import annotations

from stillscan.operators.errors import InputError, SettingsError


class UnsupportedFileError(InputError):
    """The format of the image is not supported."""

    reason = "unsupported-file"


class NotChosenError(InputError):
    """The selection rules of the settings exclude the series."""

    reason = "not-selected"


class NotDerivedError(InputError):
    """No derived series could be made; the message begins with the application's reason code."""

    reason = "not-derived"


class RequestError(SettingsError):
    """A parameter of the request has an invalid value."""

    reason = "bad-request"


class NotStoredError(InputError):
    """The derived series cannot be stored: the image is not in a DICOMweb server."""

    reason = "no-dicomweb"
