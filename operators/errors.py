"""The tree of errors: each has a stable reason code, and no message holds patient data.

StillscanError
├── InputError          the input cannot be processed as it is (a file or a series is refused)
├── NothingToDoError    no series in the input that the selection rules choose
├── ModelError          the network cannot be loaded or run
├── ResultError         the result of a series may not be shown (the series is refused)
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
    """Root of all errors that are raised on purpose.

    `reason` is a stable code (kebab-case) that logs, `result.json` and the gateway carry.
    """

    reason: ClassVar[str] = "internal-fault"
    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL_FAULT


class InputError(StillscanError):
    """A file or a series cannot be processed as it is; it is refused, the others go on."""

    reason = "bad-input"
    exit_code = ExitCode.BAD_INPUT


class NothingToDoError(StillscanError):
    """The input holds no series that the selection rules choose."""

    reason = "nothing-to-do"
    exit_code = ExitCode.NOTHING_TO_DO


class ModelError(StillscanError):
    """The network cannot be loaded or run."""

    reason = "model-fault"
    exit_code = ExitCode.MODEL_FAULT


class ResultError(StillscanError):
    """The result of one series may not be shown; the series is refused, the others go on."""

    reason = "result-refused"
    exit_code = ExitCode.BAD_INPUT


class OutputError(StillscanError):
    """The result cannot be written: the run ends and leaves nothing."""

    reason = "output-fault"
    exit_code = ExitCode.OUTPUT_FAULT


class SettingsError(StillscanError):
    """The settings or the arguments are wrong."""

    reason = "bad-settings"
    exit_code = ExitCode.USAGE


# What a result is refused for where it is written, and what the file system says there.


class NotFinitePixelsError(ResultError):
    """A denoised pixel is infinite or not a number."""

    reason = "not-finite-pixels"


class ClippedPixelsError(ResultError):
    """Too many denoised pixels do not fit into the source's stored bits (W7)."""

    reason = "pixels-clipped"


class MeanMovedError(ResultError):
    """The mean of an image is not what it was in the source (W12)."""

    reason = "mean-moved"


class NothingChangedError(ResultError):
    """The result is the source: it may not be labelled as denoised (S2)."""

    reason = "nothing-changed"


class IncompleteSeriesError(ResultError):
    """Slices of the source are missing in the result, or came out of order (W1)."""

    reason = "incomplete-series"


class DiskFullError(OutputError):
    """The file system has no room left, or the quota is used up."""

    reason = "disk-full"


class NotWritableError(OutputError):
    """The output folder may not be written."""

    reason = "output-not-writable"


# What a file or a series is refused for. The reading child raises these and the parent raises them
# again by their reason, so this module imports nothing but the standard library.


class EmptyFileError(InputError):
    """The file has no bytes."""

    reason = "empty-file"


class NotDicomError(InputError):
    """The file does not look like DICOM, with or without a preamble."""

    reason = "not-dicom"


class UnreadableFileError(InputError):
    """The file cannot be opened, or is no regular file."""

    reason = "unreadable-file"


class DamagedFileError(InputError):
    """The bytes do not follow PS3.5: a wrong VR, length or item."""

    reason = "damaged-file"


class TruncatedFileError(InputError):
    """The file ends inside an element."""

    reason = "truncated-file"


class NestedTooDeepError(InputError):
    """Sequences are nested deeper than any image needs."""

    reason = "nested-too-deep"


class HeaderTooLargeError(InputError):
    """There is more before the pixel data than any image needs, perhaps only after inflating."""

    reason = "header-too-large"


class DecoderStoppedError(InputError):
    """The reading process broke on the file or used more time or memory than it may."""

    reason = "decoder-stopped"


class FileChangedError(InputError):
    """The file is no longer what it was when the series was listed."""

    reason = "file-changed"


class MissingUidError(InputError):
    """A UID that tells instances, series and studies apart is missing."""

    reason = "missing-uid"


class InvalidUidError(InputError):
    """A UID is not made of digits and dots, or is longer than 64 characters (PS3.5 9.1)."""

    reason = "invalid-uid"


class MissingAttributeError(InputError):
    """An attribute without which pixels have no meaning is missing."""

    reason = "missing-attribute"


class InvalidAttributeError(InputError):
    """An attribute of the image cannot be read, or its value is impossible."""

    reason = "invalid-attribute"


class InvalidRescaleError(InputError):
    """RescaleSlope or RescaleIntercept is no number, or the slope cannot be inverted."""

    reason = "invalid-rescale"


class InvalidBitDepthError(InputError):
    """BitsAllocated, BitsStored, HighBit and PixelRepresentation contradict each other."""

    reason = "invalid-bit-depth"


class ModalityLutError(InputError):
    """The stored values go through a table (Modality LUT Sequence), not through a slope."""

    reason = "modality-lut-not-supported"


class NoPixelDataError(InputError):
    """An image storage object without Pixel Data."""

    reason = "no-pixel-data"


class FloatPixelsError(InputError):
    """Float Pixel Data or Double Float Pixel Data instead of Pixel Data."""

    reason = "float-pixels-not-supported"


class PixelDataLengthError(InputError):
    """Pixel Data is not as long as rows, columns, frames and bits say."""

    reason = "pixel-data-length"


class FrameTooLargeError(InputError):
    """A frame with more pixels than we accept to decode."""

    reason = "frame-too-large"


class UnknownTransferSyntaxError(InputError):
    """The transfer syntax is not one of the standard."""

    reason = "unknown-transfer-syntax"


class UnsupportedCompressionError(InputError):
    """A compression of the standard that we do not decode."""

    reason = "unsupported-compression"


class CorruptPixelDataError(InputError):
    """The compressed stream contradicts the header, or its decoder failed or warned."""

    reason = "corrupt-pixel-data"


class ConcatenationError(InputError):
    """The instance is one part of a larger one (a concatenation)."""

    reason = "concatenation"


class OverlayInPixelsError(InputError):
    """An overlay lies in the unused bits of the pixels (retired in 2004, W8)."""

    reason = "overlay-in-pixels"


class UnusedBitsError(InputError):
    """A compressed stream gives values beyond BitsStored."""

    reason = "unused-bits-set"


class IdentityConflictError(InputError):
    """Instances of one series name different patients."""

    reason = "identity-conflict"


class DuplicateInstanceError(InputError):
    """Two files have one SOPInstanceUID and different content."""

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
    """Instances of one series differ in how a pixel is stored, or in its unit."""

    reason = "mixed-pixel-format"


class NotOneVolumeError(InputError):
    """The slices of the series are not one even stack: no array with one affine holds them."""

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


class NoiseOutsideBundleError(InputError):
    """The noise is stronger than the bundle was trained for."""

    reason = "noise-outside-bundle"
