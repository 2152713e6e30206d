"""Everything inside the skull, in the order in which it is painted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bench.phantom.canvas import Canvas, Site, Tissue, Variation
from bench.phantom.cortex import (
    callosal_distance,
    dome,
    draw_folds,
    outer,
    sulcal_distance,
    temporal_lobe,
)
from bench.phantom.cranium import paint_cranium
from bench.phantom.fields import Axis, Plane
from bench.phantom.shapes import both, chain, either, ellipsoid, melt, shell, tube

# z, y, |x|, radius of the lateral ventricle: frontal horn, body, atrium, occipital horn
LATERAL_VENTRICLE = (
    (2, 33, 14, 2.2), (7, 26, 9.5, 4.0), (13, 14, 7, 4.5), (17, 4, 8, 5.0), (21, -12, 11, 5.0),
    (20, -26, 16, 5.5), (12, -38, 24, 7.0), (6, -52, 26, 4.0), (3, -66, 24, 1.5),
)  # fmt: skip
TEMPORAL_HORN = ((10, -40, 26, 5), (-6, -35, 33, 2.6), (-15, -20, 32, 2.2), (-17, -9, 28, 2.2))
BRAIN_STEM = (
    (2, -16, 5, 13), (-10, -23, 5, 11), (-26, -25, 3, 14), (-34, -27, 2, 13), (-46, -36, 0, 9),
    (-75, -46, 0, 7),
)  # fmt: skip
ARTERIES = (
    ((-45, -12, 0, 1.9), (-24, -10, 0, 1.7)),  # basilar
    ((-45, 8, 13, 2.4), (-22, 3, 11, 2.2), (-17, 4, 11, 1.6), (-16, 2, 22, 1.4), (-12, 4, 36, 1.2)),
    ((-17, 5, 10, 1.2), (-14, 16, 1.5, 1.2), (4, 36, 1.5, 1.0), (20, 36, 1.2, 1.0)),
)
# z, y, x, radius of the lesions: beside the ventricles and in the centrum semiovale
LESIONS = (
    (12, 37, -21, 2.6), (12, -46, -34, 3.0), (21, -36, 33, 3.4), (21, 30, 22, 2.4),
    (26, 8, 27, 2.8), (30, -22, -25, 3.8), (30, 20, -22, 2.2), (35, -36, 24, 3.0),
    (39, -14, 27, 2.6), (39, -34, -24, 3.2), (44, -4, -23, 2.8), (48, -28, 22, 2.4),
)  # fmt: skip


class Head:
    """A randomly generated head, of which any axial plane can be drawn."""

    def __init__(self, rng: np.random.Generator):
        """Draw the random variation of this head."""
        self._folds = draw_folds(rng)
        self._variation = Variation.draw(rng)

    def plane(
        self, level: float, y: Axis, x: Axis, signal: Mapping[Tissue, float]
    ) -> tuple[Plane, Plane]:
        """Return the signal of an infinitely thin axial plane, and the share of lesion.

        Args:
            level: height above the anterior commissure, mm.
            y: anterior position of the rows, mm, evenly spaced.
            x: left position of the columns, mm.
            signal: what each tissue gives.
        """
        site = Site.at(self._variation, level, y, x)
        canvas = Canvas(site.x.shape, abs(float(y[1] - y[0])), signal)
        stem = melt(
            chain(site.paired, BRAIN_STEM),
            ellipsoid(site.paired, (-11, -16.5, 9), (10, 8, 5.5), yaw=-30),  # peduncles
            4,
        ) + 0.5 * site.ripple  # fmt: skip
        cerebellum = either(
            ellipsoid(site.paired, (-36, -62, 24), (24, 29, 30)),
            ellipsoid(site.paired, (-34, -60, 0), (22, 24, 14)),
        )
        hull = outer(dome(site), temporal_lobe(site))
        cavity = melt(melt(-hull.depth, cerebellum, 8), stem - 4, 6) - 1.8
        paint_cranium(canvas, site, cavity)
        canvas.paint(Tissue.CSF, cavity)

        fluid = both(-hull.depth, 1.6 - cerebellum)  # outside the cerebrum
        nearest = np.minimum(-fluid, sulcal_distance(self._folds, site, hull))
        canvas.paint(Tissue.GREY, -nearest)
        canvas.paint(Tissue.WHITE, 2.7 + 0.3 * site.ripple - nearest)
        _paint_callosum_and_ventricles(canvas, site)
        _paint_nuclei(canvas, site)
        if level < 8:
            _paint_brain_stem(canvas, site, stem)
        if level < -4:
            _paint_cerebellum(canvas, site, cerebellum)
        _paint_vessels_and_falx(canvas, site, cavity)
        for z, y_mm, x_mm, radius in LESIONS:
            sphere = ellipsoid((site.z, site.y, site.x), (z, y_mm, x_mm), (radius,) * 3)
            canvas.paint(Tissue.LESION, sphere)
        grain = 0.015 * self._variation.texture.on_plane(level, y, x)
        return canvas.image * (1 + grain * (cavity < 0)), canvas.lesions


def _paint_callosum_and_ventricles(canvas: Canvas, site: Site) -> None:
    inner = (1 - np.hypot((site.y + 7) / 34, site.z / 21)) * 22
    canvas.paint(Tissue.WHITE, both(callosal_distance(site), inner, site.off - 12, -site.z))
    ventricle = melt(chain(site.paired, LATERAL_VENTRICLE), chain(site.paired, TEMPORAL_HORN), 3)
    canvas.paint(Tissue.CSF, both(ventricle, 0.7 - site.off))  # the septum stays


def _paint_nuclei(canvas: Canvas, site: Site) -> None:
    canvas.paint(Tissue.STRIATUM, ellipsoid(site.paired, (7, 13, 13.5), (12, 12, 6.2), yaw=16))
    caudate_body = [(14, 4, 16, 4), (20, -12, 20, 3), (16, -27, 24, 2.2)]
    canvas.paint(Tissue.STRIATUM, chain(site.paired, caudate_body))
    canvas.paint(Tissue.STRIATUM, ellipsoid(site.paired, (2, 2, 26.5), (11.5, 17.5, 5.8), yaw=14))
    pallidum = ellipsoid(site.paired, (-1, -4, 20.5), (7, 9.5, 4), yaw=24)
    canvas.paint(Tissue.PALLIDUM, pallidum)
    canvas.paint(Tissue.WHITE, shell(pallidum, 0.4), 0.5)
    claustrum = shell(site.off - 34 + (site.y + 2) ** 2 / 110, 0.5)
    patch = ellipsoid(site.paired, (2, 0, 33), (11, 18, 9))
    canvas.paint(Tissue.STRIATUM, both(claustrum, patch), 0.8)
    canvas.paint(Tissue.THALAMUS, ellipsoid(site.paired, (7, -17, 10.5), (9, 14.5, 8.5), yaw=24))
    canvas.paint(Tissue.CSF, ellipsoid(site.paired, (0, -11, 0), (11, 14, 1.9)))  # third ventricle
    canvas.paint(Tissue.GREY, ellipsoid(site.paired, (-20, -5, 23), (8, 7, 8)))  # amygdala
    canvas.paint(Tissue.GREY, chain(site.paired, [(-20, -12, 27, 5), (-12, -30, 30, 4)]))


def _paint_brain_stem(canvas: Canvas, site: Site, stem: Plane) -> None:
    canvas.paint(Tissue.CSF, both(stem - 2.2 - 0.8 * site.ripple, site.z + 8))  # cisterns
    star = np.abs(site.x) + 0.8 * np.abs(site.y - 3) - 13
    canvas.paint(Tissue.CSF, both(ellipsoid(site.paired, (-17, 3, 0), (7, 10, 12)), star))
    canvas.paint(Tissue.CSF, ellipsoid(site.paired, (0, -39, 0), (8, 4, 6.5)))
    canvas.paint(Tissue.WHITE, both(stem, site.z + 6))
    canvas.paint(Tissue.THALAMUS, both(stem + 2.5, site.z + 7), 0.55)
    canvas.paint(Tissue.STRIATUM, ellipsoid(site.paired, (-9, -18, 7), (4, 5, 3)), 0.5)
    canvas.paint(Tissue.CSF, ellipsoid(site.paired, (-13, -11, 0), (8, 6, 4)))


def _paint_cerebellum(canvas: Canvas, site: Site, cerebellum: Plane) -> None:
    """Draw the folia as sheets at even angles about the fourth ventricle."""
    canvas.paint(Tissue.CSF, cerebellum - 0.9)
    depth = -cerebellum
    angle = 26 * np.arctan2(site.z + 30, -site.y - 38)
    along = angle + 1.8 * site.ripple + 0.12 * site.off
    leaf = np.abs((along / 5) % 1 - 0.5) * 5
    lobe = np.abs((angle / 20.5 + 0.3) % 1 - 0.5) * 20.5
    fissures = either(
        np.hypot(np.maximum(leaf - 0.25, 0), np.maximum(depth - 9 - 3 * np.sin(0.7 * along), 0)),
        np.hypot(np.maximum(lobe - 0.7, 0), np.maximum(depth - 17, 0)),
    )
    nearest = np.minimum(depth, fissures)
    canvas.paint(Tissue.CEREBELLAR_GREY, -nearest)
    canvas.paint(Tissue.WHITE, 1.9 - nearest)
    canvas.paint(Tissue.WHITE, tube(site.paired, (-30, -28, 10), (-36, -50, 22), 7, 6))
    dentate = ellipsoid(site.paired, (-36, -56, 16), (6, 8, 6)) + site.ripple
    canvas.paint(Tissue.CEREBELLAR_GREY, shell(dentate, 1.0), 0.5)
    canvas.paint(Tissue.CSF, ellipsoid(site.paired, (-33, -45, 0), (10, 6, 8)))  # fourth ventricle
    vermis = both(ellipsoid(site.paired, (-34, -58, 0), (20, 20, 5)), cerebellum)
    canvas.paint(Tissue.GREY, vermis, 0.45)


def _paint_vessels_and_falx(canvas: Canvas, site: Site, cavity: Plane) -> None:
    canvas.paint(Tissue.BLOOD, either(*(chain(site.paired, knots) for knots in ARTERIES)), 0.9)
    midline = shell(site.x - 0.8 * site.ripple, 0.45)
    canvas.paint(Tissue.MUSCLE, both(midline, 8 - callosal_distance(site), cavity), 0.6)
    under_bone = 1.5 * np.maximum(np.abs(cavity + 1) - 1, 0)
    behind = np.where(site.y > -20, 6.0, 0.0) + np.where(site.z < -5, 9.0, 0.0)
    canvas.paint(Tissue.BLOOD, 1.2 * site.off - 4.2 + under_bone + behind)  # sagittal sinus
