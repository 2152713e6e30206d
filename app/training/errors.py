"""What keeps a training run from starting, or from ending well; each has a stable reason code."""

from __future__ import annotations

from stillscan.operators.errors import (
    ExitCode,
    InputError,
    ModelError,
    NothingToDoError,
    ResultError,
    SettingsError,
)


class NoTrainingImagesError(NothingToDoError):
    """The folder holds no file that could be a training image."""

    reason = "no-training-images"


class EverySeriesRefusedError(InputError):
    """Not one series of the folder can be trained on."""

    reason = "every-series-refused"


class TooFewImagesError(InputError):
    """What can be trained on is too little to learn from and to hold something out."""

    reason = "too-few-images"


class ImageTooSmallError(InputError):
    """An image is smaller than the smallest patch."""

    reason = "image-too-small"


class NotFiniteValuesError(InputError):
    """A training image holds values that are infinite or not a number."""

    reason = "not-finite-values"


class UnsupportedArrayError(InputError):
    """An array or a picture is not made of grey values on rows and columns."""

    reason = "unsupported-array"


class ReaderMissingError(InputError):
    """The package that reads this format is not installed."""

    reason = "reader-missing"


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


class RepeatDiffersError(InputError):
    """The two folders of a repeated scan do not hold the same series twice."""

    reason = "repeat-differs"


class ReleaseRefusedError(ResultError):
    """A fine-tuned bundle is worse than the one it was made from, or not shown to be better."""

    reason = "release-refused"
    exit_code = ExitCode.PARTLY_DERIVED  # trained, but not released
