"""Settings of the application: `app.yaml` is read once, at the start; unknown keys are errors.

Sections: `application` and `resources` (for the MAP packager), `selection` (rules for the choice of
    series),
`denoise`, `gate`, `output`. A key in the file is the field's name with hyphens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from stillscan.app.settings_reader import parse_dataclass, read_yaml
from stillscan.operators.denoising.gate_limits import GateLimits
from stillscan.operators.errors import SettingsError
from stillscan.operators.reading.selection import SelectionRules
from stillscan.operators.writing.companions.companions import ObjectOptions
from stillscan.operators.writing.derive_series import OutputOptions

DEFAULT_SETTINGS = Path(__file__).with_name("app.yaml")

Mode = Literal["student", "fast_student", "srds", "one_step", "blind_spot", "identity"]
Strength = Literal["low", "medium", "high"]
Device = Literal["auto", "cpu", "cuda"]
Engine = Literal["auto", "torch", "ncnn", "openvino"]
Temporal = Literal["off", "auto"]
Precision = Literal["auto", "float32", "bfloat16", "int8"]

# Share of the estimated noise that is removed: `out = in + strength * (denoised - in)`.
STRENGTHS: Mapping[Strength, float] = {"low": 0.5, "medium": 0.75, "high": 1.0}
STRENGTH_EXPECTED = "expected low, medium, high or a number from 0 to 1"


@dataclass(frozen=True)
class ApplicationSection:
    """Values that the MAP packager writes into `app.json`.

    The version is for the packager; the application takes its own from `stillscan`.
    """

    title: str
    version: str
    input_formats: tuple[str, ...] = ("file",)
    output_formats: tuple[str, ...] = ("file",)


@dataclass(frozen=True)
class ResourcesSection:
    """Values that the MAP packager writes into `pkg.json`: the resources of one run."""

    cpu: int = 1
    gpu: int = 0
    memory: str = "2Gi"
    gpu_memory: str = field(default="0Gi", metadata={"key": "gpuMemory"})
    shared_memory: str = field(default="64Mi", metadata={"key": "sharedMemory"})


@dataclass(frozen=True)
class DenoiseSection:
    """Settings of the denoising.

    Attributes:
        mode: `student` (the default network); `fast_student` (a smaller one) or `srds`, `one_step`
            or `blind_spot` (slow references), if the bundle has them; or `identity` (a control that
            changes no pixel).
        strength: share of the estimated noise that is removed, see `STRENGTHS`; or a number from
            0 to 1.
        device: device for the network; `auto` uses a GPU if there is one.
        engine: inference backend; `auto` chooses by processor and installed packages, see
            `stillscan.models.engines.choice`.
        precision: precision of the network's arithmetic; `auto` chooses by device.
        temporal: `auto`: a cine is denoised along its motion, each phase with its neighbours; `off`
            (default): each phase alone.
    """

    mode: Mode = "student"
    strength: Strength | float = "high"
    device: Device = "auto"
    engine: Engine = "auto"
    precision: Precision = "auto"
    temporal: Temporal = "off"

    def __post_init__(self) -> None:
        """Refuse a strength outside 0 to 1 (ValueError)."""
        if not 0 <= self.share <= 1:
            raise ValueError(f"strength is {self.share:g}; {STRENGTH_EXPECTED}")

    @property
    def share(self) -> float:
        """The strength as a number."""
        return STRENGTHS[self.strength] if isinstance(self.strength, str) else self.strength


@dataclass(frozen=True)
class OutputSection:
    """Settings of the output.

    Attributes:
        report: also write `report/` (result.json and pages) beside the series.
        report_limit_mb: a page that would be larger shows its images reduced in size.
        names: whether pages and tables show SeriesNumber, SeriesDescription, BodyPartExamined and
            the date.
        series: labels and encoding of derived series.
        objects: further objects that are made for each series.
    """

    report: bool = False
    report_limit_mb: float = 40.0
    names: bool = True
    series: OutputOptions = field(default_factory=OutputOptions)
    objects: ObjectOptions = field(default_factory=ObjectOptions)

    @property
    def page_mb(self) -> float | None:
        """The size limit of a page; None if no report is written."""
        return self.report_limit_mb if self.report else None


@dataclass(frozen=True)
class Settings:
    """All settings of the application."""

    application: ApplicationSection
    resources: ResourcesSection
    selection: SelectionRules
    denoise: DenoiseSection
    gate: GateLimits
    output: OutputSection


def load_settings(path: Path = DEFAULT_SETTINGS) -> Settings:
    """Read the settings from a YAML file.

    Raises:
        SettingsError: if the file cannot be read, a key is unknown or missing, or a value has the
            wrong type.
    """
    return parse_settings(read_yaml(path), str(path))


def parse_settings(document: object, source: str = "settings") -> Settings:
    """Turn a parsed YAML document into `Settings`; `source` names it in messages."""
    return parse_dataclass(Settings, document, source)


def with_choices(
    settings: Settings,
    mode: Mode | None,
    strength: Strength | float | None,
    device: Device | None,
    engine: Engine | None = None,
) -> Settings:
    """Return the settings with what a command or a call chooses; None chooses nothing.

    Raises:
        SettingsError: if a value is invalid.
    """
    if isinstance(strength, str) and strength not in STRENGTHS:
        raise SettingsError(f"strength is '{strength}'; {STRENGTH_EXPECTED}")
    denoise = settings.denoise
    try:
        chosen = replace(
            denoise,
            mode=mode or denoise.mode,
            strength=denoise.strength if strength is None else strength,
            device=device or denoise.device,
            engine=engine or denoise.engine,
        )
    except ValueError as error:
        raise SettingsError(str(error)) from error
    if chosen.mode not in get_args(Mode):
        raise SettingsError(f"mode is '{mode}'; expected one of {', '.join(get_args(Mode))}")
    return replace(settings, denoise=chosen)
