"""The third door of the graph: what the network made in, what may leave out."""

from __future__ import annotations

from typing import Any

import stillscan.operators.graph.cuda_runtime  # noqa: F401 - loads what holoscan is linked with

# isort: split
from holoscan.core import (
    ExecutionContext,
    Fragment,
    InputContext,
    Operator,
    OperatorSpec,
    OutputContext,
)

from stillscan.operators.graph.stages import GateStage


class GateOperator(Operator):  # type: ignore[misc]  # holoscan has no type information
    """Clamps and judges block by block, and applies the strength.

    Ports:
        in `estimated_block`: an `EstimatedBlock` or a `SeriesFailed`.
        out `denoised_block`: a `DenoisedBlock` or a `SeriesFailed`.
    """

    def __init__(self, fragment: Fragment, *conditions: Any, stage: GateStage, name: str) -> None:
        """`stage` knows the limits."""
        self._stage = stage
        super().__init__(fragment, *conditions, name=name)

    def setup(self, spec: OperatorSpec) -> None:
        """Name the ports."""
        spec.input("estimated_block")
        spec.output("denoised_block")

    def compute(
        self, op_input: InputContext, op_output: OutputContext, context: ExecutionContext
    ) -> None:
        """Judge one block and pass it on."""
        denoised = self._stage.take(op_input.receive("estimated_block"))
        if denoised is not None:
            op_output.emit(denoised, "denoised_block")
