"""One captured graph per shape: on a GPU, launching a small network costs more than its work."""

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

CAPTURED = 4  # shapes whose graphs, and memory, are kept
WARM_UPS = 3  # before a capture: libraries choose their kernels

Planes = tuple[Tensor, ...]
Function = Callable[[Tensor], Planes]


@dataclass(frozen=True)
class _Captured:
    graph: Any
    given: Tensor
    result: Planes


class CapturedFunction:
    """A function of one tensor, replayed from a graph of its shape.

    Where a capture fails, that is said once and the function is called as it is from then on.
    """

    def __init__(self, function: Function) -> None:
        self._function = function
        self._graphs: OrderedDict[tuple[int, ...], _Captured] = OrderedDict()
        self._works = True

    def __call__(self, given: Float[Tensor, "*shape"]) -> Planes:
        """The function's result; it is the caller's own."""
        if not self._works:
            return self._function(given)
        shape = tuple(given.shape)
        try:
            captured = self._graphs.get(shape) or self._capture(given)
        except torch.OutOfMemoryError:
            raise  # less memory is no better without a graph
        except RuntimeError as error:  # torch raises nothing more precise
            log.warning("CUDA graphs do not work here, kernels are launched singly: %s", error)
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
