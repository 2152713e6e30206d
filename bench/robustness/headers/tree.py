r"""The header of a DICOM file as a tree that can be changed at will and written again.

    tree = HeaderTree.of(path)
    tree.put("PixelSpacing", b"nan\\1")
    path.write_bytes(tree.content())

Whatever is put in is written as it is; only lengths are right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydicom.datadict import dictionary_VR, tag_for_keyword

from stillscan.operators.dicom.elements import Element, serialised
from stillscan.operators.reading.sandbox.file_source import FileSource
from stillscan.operators.reading.sandbox.parser import parse_file

EXPLICIT_LE = b"1.2.840.10008.1.2.1"
PREAMBLE = bytes(128) + b"DICM"
Items = list[list[Element]]
T = TypeVar("T")


def tag_of(keyword: str) -> int:
    """The tag of a keyword."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, f"{keyword} is a DICOM keyword"
    return tag


def element(keyword: str, value: bytes = b"", vr: str = "", items: Items | None = None) -> Element:
    """One element; `vr` where it is to have another than its own."""
    vr = vr or dictionary_VR(tag_of(keyword)).partition(" or ")[0]
    return Element(tag_of(keyword), vr.encode(), value, items)


def one(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """One of them."""
    return choices[int(rng.integers(len(choices)))]


class HeaderTree:
    """Meta information, elements and pixel data of one file in Explicit VR Little Endian."""

    def __init__(self, meta: dict[int, Element], elements: list[Element], tail: bytes) -> None:
        """`tail` is the pixel data with its head."""
        self.meta, self.elements, self.tail = meta, elements, tail
        self.sorted = True

    @classmethod
    def of(cls, path: Path) -> HeaderTree:
        """The tree of an uncompressed file."""
        source = FileSource(str(path))
        try:
            parsed = parse_file(source)
            assert parsed.pixels is not None, "the file holds an image"
            pixels = source.value(parsed.pixels.start, parsed.pixels.length)
        finally:
            source.close()
        meta = {tag: each for tag, each in parsed.meta.items() if tag & 0xFFFF}
        syntax = tag_of("TransferSyntaxUID")
        meta[syntax] = Element(syntax, b"UI", EXPLICIT_LE)
        tail = serialised([Element(tag_of("PixelData"), parsed.pixels.vr, pixels)])
        return cls(meta, parsed.elements, tail)

    def copy(self) -> HeaderTree:
        """Another that may be changed."""
        return HeaderTree(dict(self.meta), list(self.elements), self.tail)

    def get(self, keyword: str) -> Element | None:
        """An element of the data set itself."""
        return next((each for each in self.elements if each.tag == tag_of(keyword)), None)

    def put(self, keyword: str, value: bytes, vr: str = "") -> None:
        """Give an attribute a value, also one that it cannot have."""
        self.set(element(keyword, value, vr))

    def put_items(self, keyword: str, items: Sequence[Sequence[Element]], vr: str = "") -> None:
        """Give a sequence these items."""
        self.set(element(keyword, b"", vr, [list(each) for each in items]))

    def set(self, new: Element) -> None:
        """Put an element in, in the place of the one that is there."""
        self.elements = [each for each in self.elements if each.tag != new.tag] + [new]

    def remove(self, keyword: str) -> None:
        """Take an attribute out."""
        self.elements = [each for each in self.elements if each.tag != tag_of(keyword)]

    def content(self) -> bytes:
        """The file."""
        group = serialised([self.meta[tag] for tag in sorted(self.meta)])
        length = Element(0x00020000, b"UL", len(group).to_bytes(4, "little"))
        elements = (
            sorted(self.elements, key=lambda each: each.tag) if self.sorted else self.elements
        )
        return PREAMBLE + serialised([length]) + group + serialised(elements) + self.tail


Kind = Callable[[HeaderTree, np.random.Generator], None]
KINDS: dict[str, Kind] = {}


def hostile(name: str) -> Callable[[Kind], Kind]:
    """A kind of hostile header, known by a name."""

    def known(kind: Kind) -> Kind:
        assert name not in KINDS, f"{name} is there already"
        KINDS[name] = kind
        return kind

    return known
