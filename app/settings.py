"""`app.yaml` becomes frozen dataclasses, once, at the start; a key that nobody reads is an error.

Sections: `application` and `resources` (what the MAP packager reads), `selection` (which series are
processed), `denoise`, `gate`, `output`. A key in the file is the field's name with hyphens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stillscan.app.settings_reader import parse_dataclass, read_yaml
from stillscan.operators.denoising.gate_limits import GateLimits
from stillscan.operators.reading.selection import SelectionRules
from stillscan.operators.writing.companions.companions import ObjectOptions
from stillscan.operators.writing.derive_series import OutputOptions

DEFAULT_SETTINGS = Path(__file__).with_name("app.yaml")

Mode = Literal["student", "fast_student", "srds", "one_step", "blind_spot", "identity"]
Strength = Literal["low", "medium", "high"]
Device = Literal["auto", "cpu", "cuda"]
Engine = Literal["auto", "torch", "ncnn", "openvino", "onnxruntime", "tensorrt"]
Precision = Literal["auto", "float32", "bfloat16", "int8"]

# How much of the estimated noise is taken away: `out = in + strength * (denoised - in)`.
STRENGTHS: Mapping[Strength, float] = {"low": 0.5, "medium": 0.75, "high": 1.0}


@dataclass(frozen=True)
class ApplicationSection:
    """What the packager writes into `app.json`.

    The version is there for the packager alone; the application takes its own from `stillscan`.
    """

    title: str
    version: str
    input_formats: tuple[str, ...] = ("file",)
    output_formats: tuple[str, ...] = ("file",)


@dataclass(frozen=True)
class ResourcesSection:
    """What the packager writes into `pkg.json`: what one run needs of its host."""

    cpu: int = 1
    gpu: int = 0
    memory: str = "2Gi"
    gpu_memory: str = field(default="0Gi", metadata={"key": "gpuMemory"})
    shared_memory: str = field(default="64Mi", metadata={"key": "sharedMemory"})


@dataclass(frozen=True)
class DenoiseSection:
    """How series are denoised.

    Attributes:
        mode: `student` (the one-step network); `fast_student` (a smaller one) or `srds`, `one_step`
            or `blind_spot` (its teacher), where the bundle has them; or `identity` (a control:
            pixels stay as they are).
        strength: share of the estimated noise that is taken away, see `STRENGTHS`.
        device: where the network runs; `auto` takes a GPU where there is one.
        engine: what multiplies; `auto` takes what this machine is good at, see
            `stillscan.models.engines.choice`.
        precision: of the network's arithmetic; `auto` takes what the device is good at.
    """

    mode: Mode = "student"
    strength: Strength = "high"
    device: Device = "auto"
    engine: Engine = "auto"
    precision: Precision = "auto"


@dataclass(frozen=True)
class OutputSection:
    """What is written.

    Attributes:
        report: also write `report/` (result.json, pictures, pages) beside the series.
        series: how derived series are marked and encoded.
        objects: what else is made beside each of them.
    """

    report: bool = False
    series: OutputOptions = field(default_factory=OutputOptions)
    objects: ObjectOptions = field(default_factory=ObjectOptions)


@dataclass(frozen=True)
class Settings:
    """All settings of the application, as one value."""

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
