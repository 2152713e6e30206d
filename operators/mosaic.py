"""Mosaics: one image that contains the slices of a volume as tiles, row by row.

Siemens (ImageType MOSAIC) and United Imaging (VFRAME) store echo-planar volumes in this way. The
borders between tiles are not anatomy, so each tile is denoised as a separate slice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Shaped

Plane = Shaped[np.ndarray, "row column"]


@dataclass(frozen=True)
class Mosaic:
    """Layout of the tiles in the image; the rest after the last tile is empty.

    Attributes:
        tiles: number of slices.
        across, down: number of tile positions in a row, and number of rows of tiles.
        rows, columns: size of one tile.
    """

    tiles: int
    across: int
    down: int
    rows: int
    columns: int

    @classmethod
    def of(cls, tiles: int, rows: int, columns: int, *, square: bool) -> Self | None:
        """Return the mosaic of this many tiles in an image; None if they do not fill it.

        Args:
            tiles: number of slices.
            rows: of the picture.
            columns: of the picture.
            square: as many rows of tiles as tiles in a row (Siemens), whatever stays empty.
        """
        if tiles < 2:
            return None
        across = math.isqrt(tiles - 1) + 1
        down = across if square else -(-tiles // across)
        if rows % down or columns % across:
            return None
        return cls(tiles, across, down, rows // down, columns // across)

    def tile(self, picture: Plane, index: int) -> Plane:
        """Return a view of one tile, counted from 0."""
        top, left = index // self.across * self.rows, index % self.across * self.columns
        return picture[top : top + self.rows, left : left + self.columns]

    def is_empty_beyond(self, picture: Plane) -> bool:
        """Return whether nothing but 0 stands where no slice is."""
        places = self.across * self.down
        return not any(self.tile(picture, each).any() for each in range(self.tiles, places))

    def join(self, tiles: Sequence[Plane]) -> Plane:
        """Return the picture that holds these tiles."""
        picture = np.zeros((self.down * self.rows, self.across * self.columns), tiles[0].dtype)
        for index, values in enumerate(tiles):
            self.tile(picture, index)[...] = values
        return picture
