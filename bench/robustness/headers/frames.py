"""Functional groups of frames that are empty, huge, or say what cannot be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.robustness.headers.tree import HeaderTree, Kind, element, hostile, one
from bench.robustness.headers.values import NUMBERS, TEXTS, numbers
from stillscan.operators.dicom.elements import Element

MACROS = (
    *("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"),
    *("FrameContentSequence", "PixelValueTransformationSequence", "MRImageFrameTypeSequence"),
    *("FrameVOILUTSequence", "DerivationImageSequence"),
)


def _groups(change: Callable[[list[Element], int, np.random.Generator], list[Element]]) -> Kind:
    """Change the functional groups of every frame; a classic image gets some."""

    def changed(tree: HeaderTree, rng: np.random.Generator) -> None:
        before = tree.get("PerFrameFunctionalGroupsSequence")
        frames = before.items if before is not None and before.items else [[]]
        after = [change(list(each), number, rng) for number, each in enumerate(frames)]
        tree.put_items("PerFrameFunctionalGroupsSequence", after)

    return changed


def _macro(keyword: str, *inside: Element) -> Element:
    return element(keyword, items=[list(inside)])


def _with(frame: list[Element], *new: Element) -> list[Element]:
    tags = {each.tag for each in new}
    return sorted([*(each for each in frame if each.tag not in tags), *new], key=lambda e: e.tag)


def _frame_geometry(frame: list[Element], _: int, rng: np.random.Generator) -> list[Element]:
    return _with(
        frame,
        _macro("PlanePositionSequence", element("ImagePositionPatient", numbers(rng, 3))),
        _macro("PlaneOrientationSequence", element("ImageOrientationPatient", numbers(rng, 6))),
        _macro("PixelMeasuresSequence", element("PixelSpacing", numbers(rng, 2))),
    )


def _frame_rescale(frame: list[Element], _: int, rng: np.random.Generator) -> list[Element]:
    inside = (
        element("RescaleSlope", one(rng, (*NUMBERS, b"1", b"2.5"))),
        element("RescaleIntercept", one(rng, (*NUMBERS, b"0"))),
        element("RescaleType", one(rng, (*TEXTS, b"US", b"HU"))),
    )
    return _with(frame, _macro("PixelValueTransformationSequence", *inside))


def _frame_turned(frame: list[Element], at: int, rng: np.random.Generator) -> list[Element]:
    turn = f"1\\0\\0\\0\\{np.cos(at / 99):.6f}\\{np.sin(at / 99):.6f}".encode()
    inside = element("ImageOrientationPatient", turn)
    content = element("StackID", str(at).encode())
    return _with(
        frame, _macro("PlaneOrientationSequence", inside), _macro("FrameContentSequence", content)
    )


def _frame_dimensions(frame: list[Element], _: int, rng: np.random.Generator) -> list[Element]:
    values = rng.bytes(one(rng, [0, 2, 4, 12, 60_000]))
    return _with(frame, _macro("FrameContentSequence", element("DimensionIndexValues", values)))


def _frame_type(frame: list[Element], _: int, rng: np.random.Generator) -> list[Element]:
    kind = b"\\".join(one(rng, (b"ORIGINAL", b"PRIMARY", b"\xff", b"")) for _ in range(500))
    return _with(frame, _macro("MRImageFrameTypeSequence", element("FrameType", kind)))


def _huge_frame(frame: list[Element], _: int, rng: np.random.Generator) -> list[Element]:
    many = [Element(0x00400000 | 0x2000 + n, b"LO", b"x") for n in range(4000)]
    return _with(frame, _macro("UnassignedPerFrameConvertedAttributesSequence", *many))


def _empty_macros(frame: list[Element], _: int, rng: np.random.Generator) -> list[Element]:
    counts = {keyword: int(rng.integers(3)) for keyword in MACROS}
    return _with(frame, *(element(each, items=[[]] * n) for each, n in counts.items()))


def _macros_as_text(frame: list[Element], _: int, rng: np.random.Generator) -> list[Element]:
    return _with(frame, *(element(each, rng.bytes(10), "LO") for each in MACROS))


@hostile("shared functional groups")
def _shared(tree: HeaderTree, rng: np.random.Generator) -> None:
    items: list[list[Element]] = [[], _empty_macros([], 0, rng), _frame_geometry([], 0, rng)]
    tree.put_items(
        "SharedFunctionalGroupsSequence", [one(rng, items) for _ in range(rng.integers(3))]
    )


@hostile("count of functional groups")
def _frame_count(tree: HeaderTree, rng: np.random.Generator) -> None:
    tree.put_items("PerFrameFunctionalGroupsSequence", [[]] * int(rng.integers(0, 12)))


@hostile("dimension pointers")
def _dimension_pointers(tree: HeaderTree, rng: np.random.Generator) -> None:
    pointers = [
        [element("DimensionIndexPointer", rng.bytes(int(rng.integers(0, 9))))] for _ in range(4)
    ]
    tree.put_items("DimensionIndexSequence", [*pointers, []])


hostile("frame geometry")(_groups(_frame_geometry))
hostile("frame rescale")(_groups(_frame_rescale))
hostile("frames turned")(_groups(_frame_turned))
hostile("frame dimensions")(_groups(_frame_dimensions))
hostile("frame types")(_groups(_frame_type))
hostile("huge functional groups")(_groups(_huge_frame))
hostile("empty functional groups")(_groups(_empty_macros))
hostile("functional groups as text")(_groups(_macros_as_text))
