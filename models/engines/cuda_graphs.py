"""CUDA graphs, one for each shape: launching a small network costs more than its arithmetic."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

log = logging.getLogger("stillscan")

CAPTURED = 4  # number of shapes whose graphs and memory are kept
WARM_UPS = 3  # calls before a capture, in which libraries choose their kernels

Planes = tuple[Tensor, ...]
Function = Callable[[Tensor], Planes]


@dataclass(frozen=True)
class _Captured:
    graph: Any
    given: Tensor
    result: Planes


class CapturedFunction:
    """A function of one tensor that is replayed from a CUDA graph for its shape.

    If a capture fails, a warning is logged once and the function is called directly from then on.
    """

    def __init__(self, function: Function) -> None:
        self._function = function
        self._graphs: OrderedDict[tuple[int, ...], _Captured] = OrderedDict()
        self._works = True

    def __call__(self, given: Float[Tensor, "*shape"]) -> Planes:
        """Compute the function; the result is a copy that belongs to the caller."""
        if not self._works:
            return self._function(given)
        shape = tuple(given.shape)
        try:
            captured = self._graphs.get(shape) or self._capture(given)
        except torch.OutOfMemoryError:
            raise  # it would fail without a graph as well
        except RuntimeError as error:  # torch has no narrower class
            log.warning("CUDA graphs do not work here, kernels are launched one by one: %s", error)
            self._works = False
            self._graphs.clear()
            return self._function(given)
        self._graphs[shape] = captured
        self._graphs.move_to_end(shape)
        captured.given.copy_(given)
        captured.graph.replay()
        return tuple(plane.clone() for plane in captured.result)

    def _capture(self, like: Tensor) -> _Captured:
        if len(self._graphs) >= CAPTURED:
            self._graphs.popitem(last=False)
        given = like.clone()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                self._function(given)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self._function(given)
        return _Captured(graph, given, result)
