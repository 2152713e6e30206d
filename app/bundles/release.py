"""The error of a bundle that its release check refused."""

from __future__ import annotations

from stillscan.operators.errors import ExitCode, ResultError


class ReleaseRefusedError(ResultError):
    """A fine-tuned bundle is worse than the one it was made from, or not shown to be better."""

    reason = "release-refused"
    exit_code = ExitCode.PARTLY_DERIVED  # trained, but not released
