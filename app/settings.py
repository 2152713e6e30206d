"""`app.yaml` becomes frozen dataclasses, once, at the start; a key that nobody reads is an error.

Sections: `application` and `resources` (what the MAP packager reads), `selection` (which series are
processed), `denoise`, `gate`, `output`. A key in the file is the field's name with hyphens.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

from stillscan.operators.denoising.gate_limits import GateLimits
from stillscan.operators.errors import SettingsError
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

T = TypeVar("T")


@dataclass(frozen=True)
class ApplicationSection:
    """What the packager writes into `app.json`; title and version also mark derived series."""

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


def read_yaml(path: Path) -> object:
    """The document that a YAML file holds.

    Raises:
        SettingsError: if the file cannot be read or is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"settings {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings {path} are not YAML: {_first_line(error)}") from error


def parse_settings(document: object, source: str = "settings") -> Settings:
    """Turn a parsed YAML document into `Settings`; `source` names it in messages."""
    return parse_dataclass(Settings, document, source)


def parse_dataclass(kind: type[T], document: object, source: str) -> T:
    """Turn a parsed YAML document into a frozen dataclass, with all dataclasses inside it.

    Raises:
        SettingsError: if a key is unknown or missing, or a value has the wrong type or is refused
            by the dataclass (ValueError).
    """
    return _dataclass_from(kind, document, source, ())


def _dataclass_from(kind: type[T], value: object, source: str, path: tuple[str, ...]) -> T:
    """Build the dataclass `kind` from a mapping, refusing keys that it does not have."""
    if value is None:
        value = {}  # an empty section in YAML
    if not isinstance(value, Mapping):
        raise _wrong_type(source, path, value, "a mapping")
    known = {_key(each): each for each in fields(cast(Any, kind))}
    for key in value:
        if key not in known:
            raise SettingsError(
                f"{source}: unknown key '{_dotted((*path, str(key)))}'; known here: "
                f"{', '.join(sorted(known))}"
            )
    hints = get_type_hints(kind)
    arguments = {}
    for key, each in known.items():
        if key in value:
            arguments[each.name] = _value_of(hints[each.name], value[key], source, (*path, key))
        elif is_dataclass(hints[each.name]):
            arguments[each.name] = _dataclass_from(hints[each.name], {}, source, (*path, key))
        elif each.default is MISSING and each.default_factory is MISSING:
            raise SettingsError(f"{source}: key '{_dotted((*path, key))}' is missing")
    try:
        return kind(**arguments)
    except ValueError as error:  # a range that the dataclass itself checks
        raise SettingsError(f"{source}: {_dotted(path)}: {error}") from error


def _value_of(hint: Any, value: object, source: str, path: tuple[str, ...]) -> object:
    """Check `value` against a type hint and convert lists to tuples or sets."""
    if is_dataclass(hint):
        return _dataclass_from(cast(type[object], hint), value, source, path)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        # YAML reads a bare on/off as a boolean: the message then shows what it became
        if value not in arguments or isinstance(value, bool):
            raise _wrong_type(source, path, value, f"one of {', '.join(map(str, arguments))}")
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (inner,) = (each for each in arguments if each is not type(None))
        return _value_of(inner, value, source, path)
    if origin in (tuple, frozenset):
        if not isinstance(value, list):
            raise _wrong_type(source, path, value, "a list")
        items = [
            _value_of(arguments[0], item, source, (*path, str(index)))
            for index, item in enumerate(value)
        ]
        return origin(items)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise _wrong_type(source, path, value, "a mapping")
        return {
            _value_of(arguments[0], key, source, (*path, str(key))): _value_of(
                arguments[1], item, source, (*path, str(key))
            )
            for key, item in value.items()
        }
    if hint is Path and isinstance(value, str) and value:
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise _wrong_type(source, path, value, _plain(hint))
    return value


def _key(each: Field[Any]) -> str:
    return str(each.metadata.get("key", each.name.replace("_", "-")))


def _plain(hint: type) -> str:
    names = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}
    names[Path] = "a path"
    return names.get(hint, hint.__name__)


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(path) or "the document"


def _wrong_type(source: str, path: tuple[str, ...], value: object, expected: str) -> SettingsError:
    return SettingsError(
        f"{source}: '{_dotted(path)}' is {value!r} ({type(value).__name__}); expected {expected}"
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
