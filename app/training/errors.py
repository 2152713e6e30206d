"""Errors of a training run; each has a stable reason code."""

from __future__ import annotations

from stillscan.operators.errors import (
    ModelError,
    SettingsError,
)


class UnknownModalityError(SettingsError):
    """Neither the images nor the arguments state the modality of the bundle."""

    reason = "modality-unknown"


class OutputHoldsRunError(SettingsError):
    """The output already contains a training run or a bundle."""

    reason = "output-holds-run"


class RunDiffersError(SettingsError):
    """The run to be resumed was started with other images, another profile or another seed."""

    reason = "run-differs"


class DivergedError(ModelError):
    """The loss is not finite."""

    reason = "training-diverged"


class NothingToAdaptError(SettingsError):
    """The profile fine-tunes a bundle, and none was named."""

    reason = "nothing-to-adapt"
