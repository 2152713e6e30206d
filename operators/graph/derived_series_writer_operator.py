"""The last door of the graph: quiet blocks become derived series in the staging folder."""

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

from stillscan.operators.graph.stages import WritingStage


class DerivedSeriesWriterOperator(Operator):  # type: ignore[misc]  # holoscan has no type information
    """Stages derived series; its stage lists what became of each.

    Ports:
        in `denoised_block`: a `DenoisedBlock` or a `SeriesFailed`.
    """

    def __init__(
        self, fragment: Fragment, *conditions: Any, stage: WritingStage, name: str
    ) -> None:
        """`stage` knows the staging folder and collects the outcomes."""
        self._stage = stage
        super().__init__(fragment, *conditions, name=name)

    def setup(self, spec: OperatorSpec) -> None:
        """Name the port."""
        spec.input("denoised_block")

    def compute(
        self, op_input: InputContext, op_output: OutputContext, context: ExecutionContext
    ) -> None:
        """Stage one block."""
        self._stage.take(op_input.receive("denoised_block"))
