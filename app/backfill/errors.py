"""Errors of a back-fill; each has a reason code."""

from __future__ import annotations

from stillscan.operators.errors import InputError, ModelError, OutputError, SettingsError


class RayMissingError(SettingsError):
    """Ray is not installed."""

    reason = "ray-missing"


class RayUnreachableError(SettingsError):
    """No Ray cluster at the address, or a local Ray cannot be started."""

    reason = "ray-unreachable"


class OutputHoldsBackfillError(SettingsError):
    """The destination already contains a back-fill."""

    reason = "output-holds-backfill"


class BackfillRunsError(SettingsError):
    """Another process works on the same back-fill."""

    reason = "backfill-runs"


class NoWorkersError(ModelError):
    """No worker is left, and none can be started."""

    reason = "no-workers"


class WorkerDiffersError(ModelError):
    """A worker has other settings, another version or other bundles than this process."""

    reason = "worker-differs"


class JournalError(OutputError):
    """The record of finished series cannot be read or written."""

    reason = "journal-fault"


class NotInArchiveError(InputError):
    """The archive has no series of this UID."""

    reason = "not-in-archive"


class SeriesChangedError(InputError):
    """The number of retrieved instances differs from the archive's list."""

    reason = "series-changed"
