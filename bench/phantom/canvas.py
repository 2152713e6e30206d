"""One axial plane of the head: where its pixels are, and how tissue is painted on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from bench.phantom.fields import Axis, Field, Plane, Point, smooth_field


class Tissue(StrEnum):
    """The classes that the head is made of."""

    AIR = "air"
    FAT = "fat"
    SKIN = "skin"
    BONE = "cortical bone"
    MARROW = "marrow"
    MUSCLE = "muscle"
    CSF = "cerebrospinal fluid"
    GREY = "cortical grey matter"
    WHITE = "white matter"
    STRIATUM = "caudate and putamen"
    THALAMUS = "thalamus"
    PALLIDUM = "pallidum"
    CEREBELLAR_GREY = "cerebellar grey matter"
    VITREOUS = "vitreous body"
    BLOOD = "flowing blood"
    LESION = "white matter lesion"


@dataclass(frozen=True)
class Variation:
    """The random fields that make this head differ from others."""

    shift: tuple[Field, Field, Field]
    depth: Field
    ripple: tuple[Field, Field]
    texture: Field

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Variation:
        """Draw slow displacements, sulcal depth, ripples of surfaces, tissue texture."""
        slow = [smooth_field(rng, 22.0, 8.0) for _ in range(3)]
        return cls(
            shift=(slow[0], slow[1], slow[2]),
            depth=smooth_field(rng, 9.0, 4.0),
            ripple=(smooth_field(rng, 7.0, 3.5), smooth_field(rng, 7.0, 3.5)),
            texture=smooth_field(rng, 2.5, 2.5),
        )


@dataclass(frozen=True)
class Site:
    """An axial plane in the head's coordinates (mm), deformed by the head's variation.

    Attributes:
        level: nominal height of the plane.
        z, y, x: superior, anterior and left position of every pixel, displaced.
        off: distance from the midplane, `|x|`; paired anatomy is described once with it.
        depth, ripple, ripple2: smooth random numbers of deviation 1.
    """

    level: float
    z: Plane
    y: Plane
    x: Plane
    off: Plane
    depth: Plane
    ripple: Plane
    ripple2: Plane

    @property
    def paired(self) -> Point:
        """The point folded onto one side, for shapes that occur left and right."""
        return self.z, self.y, self.off

    @classmethod
    def at(cls, variation: Variation, level: float, y: Axis, x: Axis) -> Site:
        """Return the plane at height `level` with rows at `y` and columns at `x`."""
        shift = [field.on_plane(level, y, x) for field in variation.shift]
        left = x[None, :] + 1.2 * shift[2]
        return cls(
            level=level,
            z=np.float32(level) + 0.7 * shift[0],
            y=y[:, None] + 1.5 * shift[1],
            x=left,
            off=np.abs(left),
            depth=variation.depth.on_plane(level, y, x),
            ripple=variation.ripple[0].on_plane(level, y, x),
            ripple2=variation.ripple[1].on_plane(level, y, x),
        )


class Canvas:
    """A plane on which tissues are painted one over the other, edges one pixel wide.

    Attributes:
        image: the signal painted so far.
        lesions: share of every pixel that is lesion.
    """

    def __init__(self, shape: tuple[int, int], pixel_mm: float, signal: Mapping[Tissue, float]):
        """Start with air."""
        self.image = np.zeros(shape, np.float32)
        self.lesions = np.zeros(shape, np.float32)
        self._pixel_mm = pixel_mm
        self._signal = signal

    def paint(self, tissue: Tissue, shape: Plane, share: float = 1.0) -> None:
        """Paint the inside of `shape` (signed distance in mm); `share` < 1 mixes."""
        rows = np.flatnonzero((shape < self._pixel_mm / 2).any(axis=1))
        if not len(rows):
            return
        part = slice(rows[0], rows[-1] + 1)
        cover = np.clip(0.5 - shape[part] / self._pixel_mm, 0, 1) * np.float32(share)
        self.image[part] += cover * (self._signal[tissue] - self.image[part])
        self.lesions[part] *= 1 - cover
        if tissue is Tissue.LESION:
            self.lesions[part] += cover
