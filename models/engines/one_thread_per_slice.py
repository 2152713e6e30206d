"""Slices and tiles side by side, each on one thread: no core waits for another inside a layer.

Threads inside a layer meet at its end, and wait there, busy, for the slowest: where other programs
have work as well, two threads take three times the processor time of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import local
from typing import TypeVar

import torch

Given = TypeVar("Given")
Result = TypeVar("Result")


class SideBySide:
    """As many threads as torch would use, each of them with one of torch's."""

    def __init__(self, threads: int | None = None) -> None:
        """`threads` are those of torch by default."""
        self.threads = threads or torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None
        self._within = local()  # of each thread: whether it is one of the pool

    def map(self, work: Callable[[Given], Result], each: Sequence[Given]) -> list[Result]:
        """`work` of each, in their order; one alone, or within another `map`, on this thread."""
        if self.threads == 1 or len(each) == 1 or getattr(self._within, "map", False):
            return [work(one) for one in each]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads, "slice", initializer=self._begin)
        return list(self._pool.map(work, each))

    def _begin(self) -> None:
        torch.set_num_threads(1)
        self._within.map = True
