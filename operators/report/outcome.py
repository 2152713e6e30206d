"""The outcome of one series, for the report, the summary table and the exit code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stillscan.operators.errors import ExitCode, StillscanError
from stillscan.operators.reading.file_names import shown
from stillscan.operators.reading.records import SeriesName

if TYPE_CHECKING:  # the summary needs their values, not their modules
    from stillscan.models.noise.profile import Witness
    from stillscan.operators.denoising.denoise_series import DenoisedBlock
    from stillscan.operators.denoising.gate import Verdict
    from stillscan.operators.denoising.gate_limits import GateLimits
    from stillscan.operators.denoising.repeats import RepeatCheck
    from stillscan.operators.writing.companions.companions import SeriesObject
    from stillscan.operators.writing.derive_series import DerivedSeries
    from stillscan.operators.writing.provenance import Provenance

Status = Literal["derived", "refused", "not-selected"]


@dataclass(frozen=True)
class SeriesOutcome:
    """The outcome of one series, or of one radiograph of it.

    Attributes:
        series_instance_uid: of the source; None if it is not in the files.
        sop_instance_uid: of the radiograph, as radiographs of a series are denoised one by one; ""
            for a whole series.
        status: `derived`; `refused` (because of a fault); `not-selected` (by the rules).
        reason: stable code, "" if the series was derived.
        message: for the user, without patient data.
        exit_code: exit code of the process if this were the only series.
        noise_before, noise_after: sigma in `unit`; None if it was not measured.
        error_change: of the root mean square error in the foreground, as expected, over that
            before (-0.2: a fifth less); None if it was not measured.
        seconds: wall time that the series added to the run.
        repeats: result of the check by repeated acquisitions; None if there are none.
        witnesses: what each measurement of the noise found, in `unit`; empty if not measured.
        name: what the header calls the series; None where names are switched off or unknown.
        limits: of the quality gate that judged it.
        signal: mean of the bright half of the images in `unit`; None if it was not measured.
        thumbnail: PNG of the middle slice; empty without a page.
    """

    series_instance_uid: str | None
    status: Status
    reason: str = ""
    message: str = ""
    exit_code: ExitCode = ExitCode.DERIVED
    modality: str = ""
    slices: int = 0
    unit: str = ""
    noise_before: float | None = None
    noise_after: float | None = None
    error_change: float | None = None
    seconds: float = 0.0
    verdict: Verdict | None = None
    warnings: tuple[str, ...] = ()
    derived: DerivedSeries | None = None
    objects: tuple[SeriesObject, ...] = ()
    provenance: Provenance | None = None
    repeats: RepeatCheck | None = None
    witnesses: tuple[Witness, ...] = ()
    sop_instance_uid: str = ""
    name: SeriesName | None = None
    limits: GateLimits | None = None
    signal: float | None = None
    thumbnail: bytes = b""

    @property
    def uid(self) -> str | None:
        """UID of the source series, or of the image."""
        return self.sop_instance_uid or self.series_instance_uid

    @property
    def page(self) -> str:
        """Name of its page in the report, without suffix; "" unless derived."""
        if self.derived is None:
            return ""
        whole = self.derived.series_instance_uid
        return self.derived.sop_instance_uids[0] if self.sop_instance_uid else whole


@dataclass(frozen=True)
class Progress:
    """Progress of one series, or of one image if images are denoised one by one.

    Attributes:
        denoised: the block that was written last; the series may still be refused.
    """

    series_instance_uid: str
    done: int
    slices: int
    denoised: DenoisedBlock | None = None


Watch = Callable[[Progress], None]


@dataclass(frozen=True)
class SkippedFile:
    """A file of the input that is not an image: another format, an index, a structured report."""

    name: str
    reason: str
    message: str


def unit_suffix(unit: str) -> str:
    """A unit as suffix of a number; "" if pixels have no unit ("1" in UCUM)."""
    return "" if unit in ("", "1") else f" {unit}"


def counted(number: int, noun: str) -> str:
    """`1 slice`, `2 slices`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def noise_change(before: float | None, after: float | None) -> str:
    """The relative change of the noise, such as `-72 %`; "" if it is not known."""
    if not before or after is None:
        return ""
    return f"{100 * (after / before - 1):+.0f} %"


def refused(
    series_instance_uid: str,
    files: Sequence[Path],
    error: StillscanError,
    modality: str = "",
    name: SeriesName | None = None,
) -> SeriesOutcome:
    """The outcome of a series that was refused with an error; the message names the first file."""
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    which, is_bug = f"{shown(files[0])}{more}", error.exit_code == ExitCode.INTERNAL_FAULT
    return SeriesOutcome(
        series_instance_uid=series_instance_uid,
        status="refused",
        reason=error.reason,
        message=f"{error} ({which})" if is_bug else f"{which}: {error}",
        exit_code=error.exit_code,
        modality=modality,
        slices=len(files),
        name=name,
    )


def exit_code_of(outcomes: Sequence[SeriesOutcome]) -> ExitCode:
    """The exit code of the process: all series derived, some, or the reason why none was."""
    derived = any(each.status == "derived" for each in outcomes)
    refusals = [each.exit_code for each in outcomes if each.status == "refused"]
    if derived:
        return ExitCode.PARTLY_DERIVED if refusals else ExitCode.DERIVED
    if not refusals:
        return ExitCode.NOTHING_TO_DO
    # A fault of the network concerns every series, so it precedes bugs and faults of the input.
    worst = (ExitCode.MODEL_FAULT, ExitCode.INTERNAL_FAULT)
    return next((code for code in worst if code in refusals), ExitCode.BAD_INPUT)
