"""Decides whether an image is to be denoised, by the table of words in `kind_table`.

The standard leaves most of ImageType to the manufacturers (PS3.3 C.7.6.1.1.2), who use their own
words at any position and join them ("CT_SOM5 MIP", "MRPET_UMAP3D"); so all values are compared.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from stillscan.operators.reading.kind_table import DESCRIPTION, IMAGE_TYPE, TABLE, KindRow, Reason


class AttributeValue(NamedTuple):
    """One value of one attribute; `number` counts those of ImageType from 1."""

    attribute: str
    value: str
    number: int = 1

    @property
    def shown(self) -> str:
        """Return the value for messages; a description is free text and is never repeated."""
        if self.attribute == DESCRIPTION:
            return "a name of such series"
        return self.value[:32] + (
            f" as value {self.number}" if self.attribute == IMAGE_TYPE else ""
        )


class Facts(NamedTuple):
    """The attributes of the table that an image, or one frame of it, has."""

    modality: str
    image_type: tuple[str, ...]
    others: tuple[AttributeValue, ...] = ()


class Kind(NamedTuple):
    """The kind of an image, and a message that names the attribute."""

    reason: Reason
    message: str


# Words in a description that suggest that the images are maps.
MENTIONED = ("ADC", "EADC", "FA", "TRACE", "TRACEW", "CBF", "CBV", "MTT", "TTP", "KTRANS", "MAP")


@lru_cache(2**8)  # the images of a series have the same attributes
def kinds_of(facts: Facts, own_rows: tuple[KindRow, ...] = ()) -> tuple[Kind, ...]:
    """Return the kinds of this image by the rows that match; none if it is to be denoised.

    Args:
        facts: the attributes of the image.
        own_rows: rows of the site's settings, which come before the table.
    """
    rows = [
        row
        for row in (*own_rows, *TABLE)
        if (not row.modalities or facts.modality in row.modalities)
        and (not row.derived or facts.image_type[:1] == ("DERIVED",))
    ]
    by_number = enumerate(facts.image_type, start=1)
    numbered = (AttributeValue(IMAGE_TYPE, value, number) for number, value in by_number)
    values = [(given, _remaining_words(given, rows)) for given in chain(numbered, facts.others)]
    return tuple(
        Kind(row.reason, f"{given.attribute}: found {given.shown}")
        for row in rows
        if row.reason != "image"
        for given, words in values
        if _row_matches(row, given, words)
    )


def mentioned_in(description: str) -> str:
    """Return the first word of `MENTIONED` in a description; "" if there is none."""
    words = _words(description)
    return next((word for word in MENTIONED if _place(word, words) is not None), "")


def _remaining_words(given: AttributeValue, rows: Sequence[KindRow]) -> tuple[str, ...]:
    """Return the words of a value without those of rows whose reason is `image`."""
    words = _words(given.value)
    for row in rows:
        if row.reason == "image" and _concerns(row, given):
            for word in row.words:
                if _is_pattern(word):
                    words = () if _matches(word, words, given.value) else words
                elif (place := _place(word, words)) is not None:
                    words = (*words[: place[0]], *words[place[1] :])
    return words


def _row_matches(row: KindRow, given: AttributeValue, words: tuple[str, ...]) -> bool:
    if not words or not _concerns(row, given):
        return False
    return any(
        _matches(word, words, given.value) if _is_pattern(word) else _place(word, words) is not None
        for word in row.words
    )


def _concerns(row: KindRow, given: AttributeValue) -> bool:
    return row.attribute == given.attribute and given.number >= row.first_value


def _matches(pattern: str, words: tuple[str, ...], value: str) -> bool:
    """Return whether a pattern matches the value, or its remaining letters and digits alone."""
    whole = pattern.upper()
    return fnmatchcase("".join(words), whole) or (
        words == _words(value) and fnmatchcase(value.strip().upper(), whole)
    )


def _place(word: str, words: tuple[str, ...]) -> tuple[int, int] | None:
    """Return start and end of a word, or of several that belong together, among other words."""
    wanted = _words(word)
    for start in range(len(words) - len(wanted) + 1):
        if words[start : start + len(wanted)] == wanted:
            return start, start + len(wanted)
    return None


def _is_pattern(word: str) -> bool:
    return any(sign in word for sign in "*?[")


@lru_cache(2**10)
def _words(value: str) -> tuple[str, ...]:
    """Return the runs of letters and the runs of digits, in capitals."""
    return tuple(re.findall(r"[A-Z]+|[0-9]+|%", value.upper()))
