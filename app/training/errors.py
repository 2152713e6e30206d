"""Errors of a training run; each has a stable reason code."""

from __future__ import annotations

from stillscan.operators.errors import (
    ModelError,
    SettingsError,
)


class UnknownModalityError(SettingsError):
    """Neither the images nor the arguments say which modality the bundle will serve."""

    reason = "modality-unknown"


class OutputHoldsRunError(SettingsError):
    """The output already holds a training run or a bundle."""

    reason = "output-holds-run"


class RunDiffersError(SettingsError):
    """The run to be resumed was begun with other images, another profile or another seed."""

    reason = "run-differs"


class DivergedError(ModelError):
    """The loss is no number any more."""

    reason = "training-diverged"


class NothingToAdaptError(SettingsError):
    """The profile fine-tunes a bundle, and none was named."""

    reason = "nothing-to-adapt"
