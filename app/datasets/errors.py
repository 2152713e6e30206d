"""Reasons why images cannot be used for training or evaluation; each has a stable reason code."""

from __future__ import annotations

from stillscan.operators.errors import InputError, NothingToDoError


class NoTrainingImagesError(NothingToDoError):
    """The folder holds no file that could be a training image."""

    reason = "no-training-images"


class EverySeriesRefusedError(InputError):
    """No series of the folder can be used for training."""

    reason = "every-series-refused"


class TooFewImagesError(InputError):
    """There are too few images for training and a held-out set."""

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


class RepeatDiffersError(InputError):
    """The two folders of a repeated scan do not contain the same series."""

    reason = "repeat-differs"
