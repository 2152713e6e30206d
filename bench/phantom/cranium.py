"""Everything around the brain: scalp, muscle, skull, skull base, orbits, sinuses."""

from __future__ import annotations

import numpy as np

from bench.phantom.canvas import Canvas, Site, Tissue
from bench.phantom.fields import Plane
from bench.phantom.shapes import both, chain, either, ellipsoid, melt, shell, tube

SKULL_MM = 6.2
SCALP_MM = 5.0


def paint_cranium(canvas: Canvas, site: Site, cavity: Plane) -> None:
    """Paint the head around the brain.

    Args:
        canvas: an empty plane.
        site: where it lies.
        cavity: signed distance to the inner table of the skull, negative inside.
    """
    skull = cavity - SKULL_MM
    face = ellipsoid(site.paired, (-52, 24, 0), (60, 64, 62))
    neck = tube(site.paired, (-40, -40, 0), (-110, -40, 0), 66, 60)
    head = melt(melt(skull - SCALP_MM, face, 14), neck, 14)
    canvas.paint(Tissue.FAT, head)
    _paint_muscles(canvas, site, head)
    canvas.paint(Tissue.SKIN, both(head, -head - 1.8))
    canvas.paint(Tissue.BONE, skull)
    canvas.paint(Tissue.MARROW, both(skull + 1.6 + 0.5 * site.ripple, 1.7 - cavity), 0.9)
    if site.level < -5:
        _paint_face(canvas, site, head, skull)
        _paint_skull_base(canvas, site, cavity)
        _paint_nasal_sinuses(canvas, site)
        _paint_orbits(canvas, site, head)


def _paint_muscles(canvas: Canvas, site: Site, head: Plane) -> None:
    temporalis = both(ellipsoid(site.paired, (-22, 14, 66), (40, 36, 14)), 40 - site.off)
    canvas.paint(Tissue.MUSCLE, both(temporalis, head + 3.5))
    nuchal = ellipsoid(site.paired, (-62, -80, 22), (30, 26, 30))
    canvas.paint(Tissue.MUSCLE, both(nuchal, head + 5))


def _paint_face(canvas: Canvas, site: Site, head: Plane, skull: Plane) -> None:
    infratemporal = both(head + 4.5, 32 - site.off, site.y - 52, -12 - site.y)
    canvas.paint(Tissue.MUSCLE, infratemporal)
    canvas.paint(Tissue.BONE, both(skull, head + 3))
    canvas.paint(Tissue.MARROW, both(skull + 1.6, -skull - SKULL_MM + 1.7), 0.9)
    frontal_bone = head + 7
    in_front = both(38 - site.y, -skull)
    canvas.paint(Tissue.BONE, both(shell(frontal_bone, 2.0), in_front), 0.95)
    canvas.paint(Tissue.MARROW, both(shell(frontal_bone, 0.6), in_front + 2), 0.5)


def _paint_skull_base(canvas: Canvas, site: Site, cavity: Plane) -> None:
    clivus = ellipsoid(site.paired, (-36, 14, 0), (17, 26, 24))
    canvas.paint(Tissue.MARROW, both(clivus, -cavity), 0.55)
    petrous = ellipsoid(site.paired, (-38, -22, 36), (9, 12, 18), yaw=-35)
    canvas.paint(Tissue.BONE, both(petrous, -cavity - 2), 0.9)
    mastoid = ellipsoid(site.paired, (-36, -36, 58), (12, 10, 9))
    cells = both(mastoid, 1 - cavity, -site.ripple2 - 0.2)
    canvas.paint(Tissue.AIR, cells, 0.8)


def _paint_nasal_sinuses(canvas: Canvas, site: Site) -> None:
    width = site.off - 9 - 0.6 * site.ripple2
    ethmoid = both(width, np.abs(site.y - 44) - 22, site.z + 19 + 2 * site.depth)
    canvas.paint(Tissue.BONE, ethmoid - 1)
    canvas.paint(Tissue.AIR, ethmoid)
    septa = np.abs((site.y + 2 * site.ripple2) % 7 - 3.5) - 0.6
    canvas.paint(Tissue.SKIN, both(ethmoid, either(septa, site.off - 0.8)), 0.9)
    sphenoid = ellipsoid(site.paired, (-29, 16, 7), (9, 10, 8))
    canvas.paint(Tissue.BONE, sphenoid - 1.2)
    canvas.paint(Tissue.AIR, sphenoid)
    frontal = ellipsoid(site.paired, (-14, 68, 9), (13, 4.5, 11))
    canvas.paint(Tissue.AIR, both(frontal, 0.8 - site.off))


def _paint_orbits(canvas: Canvas, site: Site, head: Plane) -> None:
    orbit = both(tube(site.paired, (-37, 56, 32), (-32, 22, 13), 16, 4), head + 4.5)
    canvas.paint(Tissue.BONE, orbit - 2)
    canvas.paint(Tissue.FAT, orbit)
    cone = tube(site.paired, (-37, 55, 32), (-32, 28, 13), 11.5, 3)
    around = np.arctan2(site.z + 36, site.off - 13 - 0.58 * (site.y - 28))
    recti = both(shell(cone, 1.6), -3 * np.cos(4 * around), site.y - 54)
    canvas.paint(Tissue.MUSCLE, recti)
    globe = ellipsoid(site.paired, (-37, 58, 32), (12, 12, 12))
    canvas.paint(Tissue.MUSCLE, globe - 1)
    canvas.paint(Tissue.VITREOUS, globe)
    canvas.paint(Tissue.MUSCLE, ellipsoid(site.paired, (-37, 66.5, 32), (4.5, 2.2, 4.5)))
    canvas.paint(Tissue.WHITE, chain(site.paired, [(-37, 47, 31, 1.8), (-32, 26, 11, 1.8)]))
