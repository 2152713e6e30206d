"""Errors of a back-fill; each has a reason code."""

from __future__ import annotations

from stillscan.operators.errors import InputError, ModelError, OutputError, SettingsError


class RayMissingError(SettingsError):
    """The package that spreads the work is not installed."""

    reason = "ray-missing"


class RayUnreachableError(SettingsError):
    """There is no Ray at the address, or it cannot be started here."""

    reason = "ray-unreachable"


class OutputHoldsBackfillError(SettingsError):
    """The destination holds a back-fill that was begun before."""

    reason = "output-holds-backfill"


class BackfillRunsError(SettingsError):
    """Another process works on the same back-fill."""

    reason = "backfill-runs"


class NoWorkersError(ModelError):
    """Not one worker is left, and none can be started."""

    reason = "no-workers"


class WorkerDiffersError(ModelError):
    """A worker has other settings, another version or other bundles than we have."""

    reason = "worker-differs"


class JournalError(OutputError):
    """The record of what is done cannot be read or written."""

    reason = "journal-fault"


class NotInArchiveError(InputError):
    """The archive has no series of this UID."""

    reason = "not-in-archive"


class SeriesChangedError(InputError):
    """Fewer or more instances came than the archive had listed."""

    reason = "series-changed"
