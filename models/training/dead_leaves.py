"""Procedural training images: dead leaves with texture and shading, some of them in zero air.

Occluding shapes with a power law of sizes have the statistics of natural images (Lee, Mumford and
Huang 2001) and train denoisers nearly as good as photographs do (Achddou et al. 2021); they are
exactly noise-free, which no scanned image is.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32
from numpy.random import Generator

Image = Float32[np.ndarray, "size size"]


def dead_leaves(size: int, rng: Generator) -> Image:
    """Draw an image of `size` x `size` pixels on [0, 1], averaged down from twice the size.

    A third of the images are "bodies": leaves inside an outline, exactly 0 outside, as air often
    is.
    """
    fine = 2 * size
    canvas = np.full((fine, fine), rng.uniform(0, 1), np.float32)
    smallest = rng.choice([2.0, 4.0, 8.0, 16.0, 32.0])
    levels = rng.choice([rng.uniform(0.02, 0.3), 1.0])  # narrow: soft tissue; wide: bone and air
    centre = rng.uniform(levels / 2, 1 - levels / 2)
    for radius in _radii(rng, int(rng.integers(150, 900)), smallest, fine / 2.5):
        _paint_leaf(canvas, float(radius), centre + levels * rng.uniform(-0.5, 0.5), rng)
    image = canvas.reshape(size, 2, size, 2).mean((1, 3))
    image = image * _shading(size, rng)
    if rng.random() < 0.35:
        image = image * _outline(size, rng)
    return np.clip(image, 0, 1).astype(np.float32)


def _radii(
    rng: Generator, count: int, smallest: float, largest: float
) -> Float32[np.ndarray, " n"]:
    """Draw radii with density r^-3 (scale invariance), mostly large first, small ones on top."""
    u = rng.uniform(0, 1, count)
    r = (smallest**-2 - u * (smallest**-2 - largest**-2)) ** -0.5
    if rng.random() < 0.7:
        r = np.sort(r)[::-1]
    return r.astype(np.float32)


def _paint_leaf(canvas: np.ndarray, radius: float, level: float, rng: Generator) -> None:
    """Cover the canvas with one textured ellipse, polygon or thin line at a random place."""
    fine = canvas.shape[0]
    cy, cx = rng.uniform(0, fine, 2)
    reach = int(radius * 1.5) + 2
    y0, y1 = max(0, int(cy) - reach), min(fine, int(cy) + reach)
    x0, x1 = max(0, int(cx) - reach), min(fine, int(cx) + reach)
    if y1 <= y0 or x1 <= x0:
        return
    y = np.arange(y0, y1, dtype=np.float32)[:, None] - cy
    x = np.arange(x0, x1, dtype=np.float32)[None, :] - cx
    angle = rng.uniform(0, np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    across = -np.sin(angle) * x + np.cos(angle) * y
    kind = rng.random()
    if kind < 0.55:  # ellipse with a wavy border
        ratio = rng.uniform(0.4, 1)
        wave = 1 + rng.uniform(0, 0.25) * np.sin(rng.integers(2, 7) * np.arctan2(across, along))
        inside = along**2 + (across / ratio) ** 2 < (radius * wave) ** 2
    elif kind < 0.85:  # polygon: an intersection of half-planes
        inside = np.ones_like(along, dtype=bool)
        for side in range(int(rng.integers(3, 7))):
            direction = 2 * np.pi * (side + rng.uniform(-0.2, 0.2)) / 6
            inside &= np.cos(direction) * along + np.sin(direction) * across < radius * 0.8
        inside &= along**2 + across**2 < (1.4 * radius) ** 2
    else:  # thin line, vessels and septa
        width = rng.uniform(1, max(2, radius / 6))
        bend = across + rng.uniform(-0.5, 0.5) * along**2 / max(radius, 1)
        inside = (np.abs(bend) < width) & (np.abs(along) < 1.3 * radius)
    canvas[y0:y1, x0:x1][inside] = (level + _texture(along, across, radius, rng))[inside]


def _texture(along: np.ndarray, across: np.ndarray, radius: float, rng: Generator) -> np.ndarray:
    """Draw a gradient, and for every second leaf stripes or fine grain."""
    slope = rng.normal(0, 0.1) / max(radius, 1)
    texture = slope * along
    kind = rng.random()
    if kind < 0.25:
        period = rng.uniform(5, 40)
        texture = texture + rng.uniform(0, 0.12) * np.sin(2 * np.pi * across / period)
    elif kind < 0.5:
        shape = tuple(int(n // 3) + 2 for n in along.shape)
        grain = rng.normal(0, rng.uniform(0, 0.12), shape)
        texture = texture + np.kron(grain, np.ones((3, 3)))[: along.shape[0], : along.shape[1]]
    return texture.astype(np.float32)


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    line = np.linspace(-1, 1, size, dtype=np.float32)
    return line[:, None], line[None, :]


def _shading(size: int, rng: Generator) -> np.ndarray:
    """Draw a smooth gain between about 0.5 and 1.5: coils, scatter."""
    y, x = _grid(size)
    a, b, c = rng.normal(0, 0.2, 3)
    return np.asarray(np.clip(1 + a * x + b * y + c * (x**2 + y**2 - 0.66), 0.4, 1.6))


def _outline(size: int, rng: Generator) -> np.ndarray:
    """Draw a mask: 1 inside a wavy ellipse, 0 outside, one pixel of transition."""
    y, x = _grid(size)
    y = (y - rng.uniform(-0.3, 0.3)) / rng.uniform(0.5, 1.1)
    x = (x - rng.uniform(-0.3, 0.3)) / rng.uniform(0.5, 1.1)
    wave = 1 + rng.uniform(0, 0.08) * np.sin(rng.integers(2, 6) * np.arctan2(y, x))
    return np.asarray(np.clip((wave - np.hypot(x, y)) * size / 2 + 0.5, 0, 1))
