"""The folded cortex: distance of every point of the cerebrum to the nearest fluid.

Sulci are the zero set of a band-limited random field, looked up at the point's projection onto the
surface of the hemisphere: sheets that run inwards from the surface, as sulci do, at the spacing of
real gyri (a wavelength of 21 mm holds two gyri: grey, white and grey matter, then fluid).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from bench.phantom.canvas import Site
from bench.phantom.fields import Field, Plane, Point, grid_axes, wavy_field
from bench.phantom.shapes import either, ellipsoid, sheet

WAVELENGTH_MM = 21.0
TOWARDS_SURFACE = 0.6  # 1: sulci run straight to the surface; 0: they ignore it
CENTRE_Z, CENTRE_Y = 6.0, -15.0


def draw_folds(rng: np.random.Generator) -> Field:
    """Signed distance (mm) to the nearest sulcus, measured along the surface.

    For a sine, `atan(k f / |grad f|) / k` is the exact distance to its zero; the gradient is taken
    along the surface because the sheets will be made perpendicular to it.
    """
    folds = wavy_field(rng, WAVELENGTH_MM, spread=0.18, step_mm=2.0)
    z, y, x = np.meshgrid(*grid_axes(folds.step_mm), indexing="ij", sparse=True)
    outwards = (z - CENTRE_Z, 0.76 * (y - CENTRE_Y), x)
    length = np.sqrt(sum(component**2 for component in outwards)) + 1e-3
    slope = np.gradient(folds.values, folds.step_mm)
    across = sum(s * o for s, o in zip(slope, outwards, strict=True)) / length
    along = np.sqrt(np.maximum(sum(s**2 for s in slope) - across**2, 1e-8))
    k = 2 * np.pi / WAVELENGTH_MM
    return Field((np.arctan(k * folds.values / along) / k).astype(np.float32), folds.step_mm)


@dataclass(frozen=True)
class Hull:
    """A smooth surface around a part of the brain.

    Attributes:
        depth: mm below the surface, negative outside.
        surface: the point of the surface above each point.
    """

    depth: Plane
    surface: Point


def dome(site: Site) -> Hull:
    """Return both hemispheres without the temporal lobes: egg-shaped, broad behind, flat below."""
    back = (site.y - CENTRE_Y) / 80
    centre = CENTRE_Y + 0.24 * (site.y - CENTRE_Y)
    radius = 63.5 - 4.5 * back - 2.0 * back**2
    up = site.z - CENTRE_Z
    height = np.where(up > 0, up * (63.5 / 68), 63.5 * np.clip(-up / 31, 0, 2) ** 3)
    share = (np.sqrt(site.x**2 + (site.y - centre) ** 2 + height**2) + 1e-3) / radius
    reach = np.sqrt(site.x**2 + (site.y - centre) ** 2 + up**2) + 1e-3
    return Hull(
        np.minimum(reach * (1 / share - 1), 40),
        (up / share + CENTRE_Z, (site.y - centre) / share + centre, site.x / share),
    )


def temporal_lobe(site: Site) -> Hull:
    """Left and right temporal lobe: a tube from the pole backwards and upwards."""
    start, along = (-27.0, 8.0, 40.0), (17.0, -50.0, 2.0)
    offset = [p - s for p, s in zip(site.paired, start, strict=True)]
    share = sum(o * a for o, a in zip(offset, along, strict=True)) / sum(a * a for a in along)
    share = np.clip(share, 0, 1)
    axis = [s + share * a for s, a in zip(start, along, strict=True)]
    away = [p - a for p, a in zip(site.paired, axis, strict=True)]
    distance = np.sqrt(sum(a**2 for a in away)) + 1e-3
    radius = 20 + share
    z, y, x = (a + w * radius / distance for a, w in zip(axis, away, strict=True))
    return Hull(radius - distance, (z, y, x * np.sign(site.x)))


def outer(first: Hull, second: Hull) -> Hull:
    """Return the union of two hulls: every point belongs to the one in which it lies deeper."""
    choose = second.depth > first.depth
    z, y, x = (np.where(choose, b, a) for a, b in zip(first.surface, second.surface, strict=True))
    return Hull(np.where(choose, second.depth, first.depth), (z, y, x))


def callosal_distance(site: Site) -> Plane:
    """Distance in mm from the outer edge of the corpus callosum in side view, positive outside."""
    y, z = np.abs(site.y + 7) / 42, np.abs(site.z - 3) / 26
    return (np.hypot(y, z) - 1) * np.where(y > z, 42, 26)


def _labyrinth(
    folds: Field, site: Site, hull: Hull, reach: Plane, where: Bool[np.ndarray, "row column"]
) -> Plane:
    """Distance to the sulci that enter through `hull` and end at depth `reach`."""
    point = [
        (TOWARDS_SURFACE * above + (1 - TOWARDS_SURFACE) * here)[where]
        for above, here in zip(hull.surface, (site.z, site.y, site.x), strict=True)
    ]
    # the two hemispheres fold differently: each looks at its own part of the field
    side = np.where(site.x > 0, 23.0, -17.0)[where]
    bend = [2.2 * ripple[where] for ripple in (site.ripple, site.ripple2, site.depth)]
    across = np.full(site.x.shape, 9.0, np.float32)
    across[where] = folds.at((point[0] + bend[0], point[1] + bend[1] + side, point[2] + bend[2]))
    half_width = 0.85 - 0.03 * np.clip(hull.depth, 0, 20)
    return sheet(across, half_width, hull.depth - reach)


def sulcal_distance(folds: Field, site: Site, hull: Hull) -> Plane:
    """Distance in mm to the fluid between the gyri: sulci, Sylvian and midline fissure.

    Args:
        folds: what `draw_folds` gave.
        site: the plane.
        hull: the surface of the cerebrum.
    """
    core = ellipsoid(site.paired, (4, -5, 0), (24, 46, 36))  # the nuclei: no sulcus enters
    callosum = callosal_distance(site)
    reach = np.clip(14 + 4 * np.clip((site.z - 5) / 30, 0, 1) + 5 * site.depth, 6, 24)
    near = (hull.depth > -3) & (hull.depth < 27) & (core > -4)
    lateral = _labyrinth(folds, site, hull, reach, near)

    wall = Hull(np.maximum(site.off - 1, 0), (site.z, site.y, np.zeros_like(site.x)))
    near = (wall.depth < 17) & (hull.depth > -3) & (callosum > 0)
    medial = _labyrinth(folds, site, wall, np.clip(9 + 4 * site.depth, 4, 14), near)

    rise = 0.87 * (site.z + 3 + 0.55 * site.y - 2.5 * site.ripple)
    sylvian = np.maximum(sheet(rise, 0.7, 38 - site.off), 0.8 * (np.abs(site.y + 10) - 34))
    lateral_wall = 39 - (site.y + 2) ** 2 / 130 - (site.z - 3) ** 2 / 60 + 1.3 * site.depth
    patch = ellipsoid(site.paired, (2, -1, 38), (15, 23, 15))
    insula = sheet(site.off - lateral_wall, 1.1, patch)
    midline = sheet(site.x - 0.8 * site.ripple, 1.0, 0.5 - callosum)
    return either(
        np.maximum(lateral, -core), np.maximum(medial, 4 - callosum), sylvian, insula, midline
    )
