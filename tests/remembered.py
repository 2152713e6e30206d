"""What costs time and is a function of its arguments alone is done once in a session."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def remembered(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The same function; of arguments that it had before it gives the same result again."""
    known: dict[bytes, Result] = {}

    @wraps(function)
    def look_up(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        key = pickle.dumps((arguments, options))
        if key not in known:
            known[key] = function(*arguments, **options)
        return known[key]

    return look_up
