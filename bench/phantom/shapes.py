"""Signed distances in mm, negative inside: the basic shapes of the anatomy.

Distances are exact for tubes and first order for ellipsoids: enough to paint an edge that is one
pixel wide (Quilez, "Distance functions").
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from bench.phantom.fields import Plane, Point

Triple = tuple[float, float, float]  # z, y, x


def ellipsoid(point: Point, centre: Triple, radii: Triple, yaw: float = 0.0) -> Plane:
    """An ellipsoid, turned by `yaw` degrees about z so that its front points to the midline."""
    z, y, x = (p - c for p, c in zip(point, centre, strict=True))
    if yaw:
        cosine, sine = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
        x, y = cosine * x + sine * y, cosine * y - sine * x
    z, y, x = z / radii[0], y / radii[1], x / radii[2]
    reach = np.sqrt(x * x + y * y + z * z) + 1e-6
    slope = np.sqrt((x / radii[2]) ** 2 + (y / radii[1]) ** 2 + (z / radii[0]) ** 2) + 1e-6
    return (reach * (reach - 1) / slope).astype(np.float32)


def tube(point: Point, start: Triple, stop: Triple, radius: float, radius_stop: float) -> Plane:
    """Return a straight tube with round ends whose radius changes evenly."""
    along = [b - a for a, b in zip(start, stop, strict=True)]
    offset = [p - a for p, a in zip(point, start, strict=True)]
    length2 = sum(e * e for e in along)
    share = np.clip(sum(o * e for o, e in zip(offset, along, strict=True)) / length2, 0, 1)
    distance = np.sqrt(sum((o - share * e) ** 2 for o, e in zip(offset, along, strict=True)))
    return (distance - (radius + (radius_stop - radius) * share)).astype(np.float32)


def chain(point: Point, knots: Sequence[tuple[float, float, float, float]]) -> Plane:
    """Tubes from knot to knot; a knot is (z, y, x, radius)."""
    parts = [tube(point, a[:3], b[:3], a[3], b[3]) for a, b in pairwise(knots)]
    return np.minimum.reduce(parts)


def melt(first: Plane, second: Plane, width: float) -> Plane:
    """Return the union of two shapes with their seam rounded over `width` mm."""
    share = np.clip(0.5 + 0.5 * (second - first) / width, 0, 1)
    return second + (first - second) * share - width * share * (1 - share)


def both(*shapes: Plane) -> Plane:
    """Return the intersection of shapes."""
    return np.maximum.reduce(shapes)


def either(*shapes: Plane) -> Plane:
    """Return the union of shapes."""
    return np.minimum.reduce(shapes)


def shell(shape: Plane, half_width: float) -> Plane:
    """Return the skin of a shape, `2 * half_width` thick."""
    return np.abs(shape) - half_width


def sheet(across: Plane, half_width: Plane | float, beyond: Plane) -> Plane:
    """A sheet where `across` is 0, ending in a round edge where `beyond` becomes positive."""
    side = np.abs(across) - half_width
    outside = np.hypot(np.maximum(side, 0), np.maximum(beyond, 0))
    return (outside - np.maximum(np.minimum(-side, -beyond), 0)).astype(np.float32)
