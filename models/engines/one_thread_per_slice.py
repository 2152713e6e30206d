"""Slices and tiles in parallel, one thread for each: no core waits for another inside a layer.

Threads inside a layer wait at its end, busily, for the slowest of them: if other programs are
running as well, two such threads take three times the processor time of one.
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
    """A pool of as many threads as torch would use, each of which uses one thread of torch."""

    def __init__(self, threads: int | None = None) -> None:
        """Set the number of threads; the default is that of torch."""
        self.threads = threads or torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None
        self._within = local()  # for each thread: whether it belongs to the pool

    def map(self, work: Callable[[Given], Result], each: Sequence[Given]) -> list[Result]:
        """Apply `work` to each item and keep their order.

        A single item, and any call from within another `map`, runs on the calling thread.
        """
        if self.threads == 1 or len(each) == 1 or getattr(self._within, "map", False):
            return [work(one) for one in each]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads, "slice", initializer=self._begin)
        return list(self._pool.map(work, each))

    def _begin(self) -> None:
        torch.set_num_threads(1)
        self._within.map = True
