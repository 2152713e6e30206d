"""First operator of the graph: emits planned series, one block of slices at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import stillscan.operators.graph.cuda_runtime  # noqa: F401 - loads a library that holoscan needs

# isort: split
from holoscan.core import (
    ExecutionContext,
    Fragment,
    InputContext,
    Operator,
    OperatorSpec,
    OutputContext,
)

from stillscan.operators.graph.messages import SeriesBlock, SeriesFailed
from stillscan.operators.volume import VolumeBlock


class SeriesReaderOperator(Operator):  # type: ignore[misc]  # holoscan has no type information
    """Emits the blocks of all series and stops when there are no more.

    Ports:
        out `block`: a `SeriesBlock` of a `VolumeBlock`, or a `SeriesFailed` for a series that
            cannot be read or planned.
    """

    def __init__(
        self,
        fragment: Fragment,
        *conditions: Any,
        blocks: Iterator[SeriesBlock[VolumeBlock] | SeriesFailed],
        name: str,
    ) -> None:
        """Set the blocks, those of a `ReadingStage`."""
        self._blocks = blocks
        super().__init__(fragment, *conditions, name=name)

    def setup(self, spec: OperatorSpec) -> None:
        """Define the port; the scheduler waits until the next stage can take a block."""
        spec.output("block")

    def compute(
        self, op_input: InputContext, op_output: OutputContext, context: ExecutionContext
    ) -> None:
        """Emit the next block."""
        block = next(self._blocks, None)
        if block is None:
            self.stop_execution()
        else:
            op_output.emit(block, "block")
