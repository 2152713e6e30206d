"""What costs time and is a function of an image alone is done once in a session."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

import numpy as np

Result = TypeVar("Result")


def remembered(function: Callable[[np.ndarray], Result]) -> Callable[[np.ndarray], Result]:
    """The same function; of an image that it had before it gives the same result again."""
    known: dict[tuple[tuple[int, ...], str, bytes], Result] = {}

    @wraps(function)
    def look_up(image: np.ndarray) -> Result:
        key = (image.shape, image.dtype.str, image.tobytes())
        if key not in known:
            known[key] = function(image)
        return known[key]

    return look_up
