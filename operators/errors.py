"""The errors of Stillscan: each has a stable reason code, and no message contains patient data.

StillscanError
├── InputError          the input cannot be processed (a file or a series is refused)
├── NothingToDoError    the input contains no series that the selection rules select
├── ModelError          the network cannot be loaded or run
├── ResultError         the result of a series is not acceptable (the series is refused)
├── OutputError         the result cannot be written
└── SettingsError       the settings are wrong
"""

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """The exit codes of the process (documented in docs/reasons.md)."""

    DERIVED = 0
    INTERNAL_FAULT = 1
    USAGE = 2
    NOTHING_TO_DO = 3
    BAD_INPUT = 4
    PARTLY_DERIVED = 5
    MODEL_FAULT = 6
    OUTPUT_FAULT = 7


class StillscanError(Exception):
    """Base class of all expected errors.

    `reason` is a stable code (kebab-case), which is used in logs, `result.json` and the gateway.
    """

    reason: ClassVar[str] = "internal-fault"
    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL_FAULT


class InputError(StillscanError):
    """A file or a series cannot be processed; it is refused, the others continue."""

    reason = "bad-input"
    exit_code = ExitCode.BAD_INPUT


class NothingToDoError(StillscanError):
    """The input contains no series that the selection rules select."""

    reason = "nothing-to-do"
    exit_code = ExitCode.NOTHING_TO_DO


class ModelError(StillscanError):
    """The network cannot be loaded or run."""

    reason = "model-fault"
    exit_code = ExitCode.MODEL_FAULT


class ResultError(StillscanError):
    """The result of one series is not acceptable; the series is refused, the others continue."""

    reason = "result-refused"
    exit_code = ExitCode.BAD_INPUT


class OutputError(StillscanError):
    """The result cannot be written; the run ends without output."""

    reason = "output-fault"
    exit_code = ExitCode.OUTPUT_FAULT


class SettingsError(StillscanError):
    """The settings or the arguments are wrong."""

    reason = "bad-settings"
    exit_code = ExitCode.USAGE


# Errors of writing a result.


class NotFinitePixelsError(ResultError):
    """A denoised pixel is infinite or not a number."""

    reason = "not-finite-pixels"


class ClippedPixelsError(ResultError):
    """Too many denoised pixels exceed the range of the stored bits of the source (W7)."""

    reason = "pixels-clipped"


class MeanMovedError(ResultError):
    """The mean of an image differs too much from that of the source (W12)."""

    reason = "mean-moved"


class NothingChangedError(ResultError):
    """The result is identical to the source, so it may not be labelled as denoised (S2)."""

    reason = "nothing-changed"


class IncompleteSeriesError(ResultError):
    """Slices of the source are missing in the result, or are out of order (W1)."""

    reason = "incomplete-series"


class DiskFullError(OutputError):
    """The file system is full, or the quota is used up."""

    reason = "disk-full"


class NotWritableError(OutputError):
    """The output folder may not be written."""

    reason = "output-not-writable"


# Errors of a file or a series. The reading process raises them and the parent raises them again by
# their reason, so this module imports only the standard library.


class EmptyFileError(InputError):
    """The file has no bytes."""

    reason = "empty-file"


class NotDicomError(InputError):
    """The file is not DICOM, with or without a preamble."""

    reason = "not-dicom"


class UnreadableFileError(InputError):
    """The file cannot be opened, or is not a regular file."""

    reason = "unreadable-file"


class DamagedFileError(InputError):
    """The bytes violate PS3.5: a wrong VR, length or item."""

    reason = "damaged-file"


class TruncatedFileError(InputError):
    """The file ends inside an element."""

    reason = "truncated-file"


class NestedTooDeepError(InputError):
    """Sequences are nested deeper than the limit."""

    reason = "nested-too-deep"


class HeaderTooLargeError(InputError):
    """The header (after inflating, if deflated) is larger than the limit."""

    reason = "header-too-large"


class DecoderStoppedError(InputError):
    """The reading process crashed on the file, or exceeded its time or memory limit."""

    reason = "decoder-stopped"


class FileChangedError(InputError):
    """The file was changed after the series was listed."""

    reason = "file-changed"


class MissingUidError(InputError):
    """A UID that identifies the instance, series or study is missing."""

    reason = "missing-uid"


class InvalidUidError(InputError):
    """A UID does not consist of digits and dots, or is longer than 64 characters (PS3.5 9.1)."""

    reason = "invalid-uid"


class MissingAttributeError(InputError):
    """An attribute that is needed to interpret the pixels is missing."""

    reason = "missing-attribute"


class InvalidAttributeError(InputError):
    """An attribute of the image cannot be read, or has an impossible value."""

    reason = "invalid-attribute"


class InvalidRescaleError(InputError):
    """RescaleSlope or RescaleIntercept is not a number, or the slope cannot be inverted."""

    reason = "invalid-rescale"


class InvalidBitDepthError(InputError):
    """BitsAllocated, BitsStored, HighBit and PixelRepresentation contradict each other."""

    reason = "invalid-bit-depth"


class ModalityLutError(InputError):
    """Modality values are defined by a table (Modality LUT Sequence), not by a slope."""

    reason = "modality-lut-not-supported"


class NoPixelDataError(InputError):
    """An image storage object without Pixel Data."""

    reason = "no-pixel-data"


class FloatPixelsError(InputError):
    """Float Pixel Data or Double Float Pixel Data instead of Pixel Data."""

    reason = "float-pixels-not-supported"


class PixelDataLengthError(InputError):
    """The length of Pixel Data does not match rows, columns, frames and bits."""

    reason = "pixel-data-length"


class FrameTooLargeError(InputError):
    """A frame has more pixels than the limit."""

    reason = "frame-too-large"


class UnknownTransferSyntaxError(InputError):
    """The transfer syntax is not one of the standard."""

    reason = "unknown-transfer-syntax"


class UnsupportedCompressionError(InputError):
    """A compression of the standard that is not supported."""

    reason = "unsupported-compression"


class CorruptPixelDataError(InputError):
    """The compressed stream contradicts the header, or its decoder failed or warned."""

    reason = "corrupt-pixel-data"


class ConcatenationError(InputError):
    """The instance is one part of a concatenation."""

    reason = "concatenation"


class OverlayInPixelsError(InputError):
    """An overlay is stored in the unused bits of the pixels (retired in 2004, W8)."""

    reason = "overlay-in-pixels"


class UnusedBitsError(InputError):
    """A compressed stream gives values beyond BitsStored."""

    reason = "unused-bits-set"


class IdentityConflictError(InputError):
    """Instances of one series belong to different patients."""

    reason = "identity-conflict"


class DuplicateInstanceError(InputError):
    """Two files have the same SOPInstanceUID and different content."""

    reason = "duplicate-instance"


class MixedSeriesError(InputError):
    """Instances of one series differ in study, SOP class or modality."""

    reason = "mixed-series"


class MixedMatrixError(InputError):
    """Instances of one series differ in Rows or Columns."""

    reason = "mixed-matrix"


class MixedPhotometricError(InputError):
    """Instances of one series differ in PhotometricInterpretation."""

    reason = "mixed-photometric"


class MixedPixelFormatError(InputError):
    """Instances of one series differ in the stored format of pixels, or in their unit."""

    reason = "mixed-pixel-format"


class NotOneVolumeError(InputError):
    """The slices are not parallel and evenly spaced: they do not form one array with one affine."""

    reason = "not-one-volume"


def input_error(reason: str, message: str) -> InputError:
    """Return the leaf of InputError with this reason.

    Raises:
        KeyError: if no leaf has it.
    """
    return {leaf.reason: leaf for leaf in InputError.__subclasses__()}[reason](message)


class NoNoiseInSeriesError(InputError):
    """The series is constant: there is no noise to remove."""

    reason = "no-noise"


class NoSignalError(InputError):
    """The series holds noise alone: there is nothing to show."""

    reason = "no-signal"


class NoiseNotMeasuredError(InputError):
    """No measurement of the noise can be relied on, so nothing may be removed as noise."""

    reason = "noise-not-measured"


class NoiseOutsideBundleError(InputError):
    """The noise is stronger than the bundle was trained for."""

    reason = "noise-outside-bundle"
