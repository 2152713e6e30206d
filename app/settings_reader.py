"""Reads YAML into frozen dataclasses by their type hints; an unknown key is an error.

A key in the document is the field's name with hyphens, or the `key` in the field's metadata. Used
for `app.yaml` and `gateway.yaml`.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import yaml

from stillscan.operators.errors import SettingsError

T = TypeVar("T")

MAX_WHOLE = 2**53  # larger whole numbers are not exact as a floating-point number
NAMES: Mapping[type, str] = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    Path: "a path",
}


@dataclass(frozen=True)
class Allowed:
    """Which values of its type a setting may have: `Annotated[int, between(1, 65535)]`.

    Attributes:
        expected: what is allowed, for the message.
        holds: whether a value is allowed.
    """

    expected: str
    holds: Callable[[Any], bool]


def between(least: float, most: float) -> Allowed:
    """A number in this range, both ends included."""
    return Allowed(f"a number from {least:g} to {most:.12g}", lambda value: least <= value <= most)


class _UniqueKeys(yaml.SafeLoader):
    """YAML, except that a key which is there twice is an error, not ignored the first time."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"key '{key.value}' is there twice, again in line {line}")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> object:
    """Read the document in a YAML file.

    Raises:
        SettingsError: if the file cannot be read or is not YAML.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except OSError as error:
        raise SettingsError(f"settings {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first_line = str(error).splitlines()[0]
        raise SettingsError(f"settings {path} are not YAML: {first_line}") from error


def parse_dataclass(kind: type[T], document: object, source: str) -> T:
    """Turn a parsed YAML document into a frozen dataclass, with all dataclasses inside it.

    Args:
        kind: the dataclass.
        document: result of `read_yaml`.
        source: name of the document in messages.

    Raises:
        SettingsError: if a key is unknown or missing, or a value has the wrong type or is refused
            by the dataclass (ValueError).
    """
    return _dataclass(kind, document, _Place(source))


@dataclass(frozen=True)
class _Place:
    """The place of a value in a document, for messages."""

    source: str
    keys: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ".".join(self.keys) or "the document"

    def below(self, key: object) -> _Place:
        return _Place(self.source, (*self.keys, str(key)))

    def error(self, message: str) -> SettingsError:
        return SettingsError(f"{self.source}: {message}")

    def wrong_type(self, value: object, expected: str) -> SettingsError:
        return self.error(f"'{self}' is {value!r} ({type(value).__name__}); expected {expected}")


def _dataclass(kind: type[T], value: object, place: _Place) -> T:
    """Build the dataclass `kind` from a mapping, refusing keys that it does not have."""
    if value is None:
        value = {}  # an empty section in YAML
    if not isinstance(value, Mapping):
        raise place.wrong_type(value, "a mapping")
    known = {_key(each): each for each in fields(cast(Any, kind))}
    for key in value:
        if key not in known:
            listed = ", ".join(sorted(known))
            raise place.error(f"unknown key '{place.below(key)}'; known here: {listed}")
    hints = get_type_hints(kind, include_extras=True)
    arguments = {}
    for key, each in known.items():
        hint = hints[each.name]
        if key in value:
            arguments[each.name] = _value(hint, value[key], place.below(key))
        elif is_dataclass(hint):
            arguments[each.name] = _dataclass(cast(type[object], hint), {}, place.below(key))
        elif each.default is MISSING and each.default_factory is MISSING:
            raise place.error(f"key '{place.below(key)}' is missing")
    try:
        return kind(**arguments)
    except ValueError as error:  # a range that the dataclass itself checks
        raise place.error(f"{place}: {error}") from error


def _key(each: Field[Any]) -> str:
    return str(each.metadata.get("key", each.name.replace("_", "-")))


def _value(hint: Any, value: object, place: _Place) -> object:
    """Check `value` against a type hint; lists become tuples or sets."""
    if is_dataclass(hint):
        return _dataclass(cast(type[object], hint), value, place)
    of = get_args(hint)
    match get_origin(hint):
        case None:
            return _plain(hint, value, place)
        case origin if origin is Annotated:
            return _allowed(of, value, place)
        case origin if origin is Literal:
            return _choice(of, value, place)
        case origin if origin in (Union, types.UnionType):
            return _optional(of, value, place)
        case origin if origin is Mapping:
            return _mapping(of, value, place)
        case origin:
            return _sequence(origin, of[0], value, place)


def _allowed(of: tuple[Any, ...], value: object, place: _Place) -> object:
    hint, *limits = of
    checked = _value(hint, value, place)
    for limit in limits:
        if not limit.holds(checked):
            raise place.error(f"'{place}' is {value!r}; expected {limit.expected}")
    return checked


def _choice(allowed: tuple[object, ...], value: object, place: _Place) -> object:
    # YAML reads a bare on/off as a boolean: the message then shows what it became
    if value not in allowed or isinstance(value, bool):
        raise place.wrong_type(value, f"one of {', '.join(map(str, allowed))}")
    return value


def _optional(hints: tuple[Any, ...], value: object, place: _Place) -> object:
    if value is None and type(None) in hints:
        return None
    of = [each for each in hints if each is not type(None)]
    if len(of) > 1 and float in of:  # a word or a number
        number = isinstance(value, int | float) and not isinstance(value, bool)
        of = [each for each in of if (each is float) == number]
    (hint,) = of
    return _value(hint, value, place)


def _sequence(kind: Any, hint: Any, value: object, place: _Place) -> object:
    if not isinstance(value, list):
        raise place.wrong_type(value, "a list")
    return kind(_value(hint, item, place.below(index)) for index, item in enumerate(value))


def _mapping(hints: tuple[Any, ...], value: object, place: _Place) -> object:
    if not isinstance(value, Mapping):
        raise place.wrong_type(value, "a mapping")
    of_key, of_item = hints
    return {
        _value(of_key, key, place.below(key)): _value(of_item, item, place.below(key))
        for key, item in value.items()
    }


def _plain(hint: Any, value: object, place: _Place) -> object:
    if hint is Path and isinstance(value, str) and value:
        return Path(value)
    if hint is float and type(value) is int and abs(value) <= MAX_WHOLE:
        return float(value)
    wrong = isinstance(value, bool) and hint is not bool
    if wrong or not isinstance(value, hint) or (hint is float and not math.isfinite(value)):
        raise place.wrong_type(value, NAMES.get(hint, hint.__name__))
    return value
