"""The second door of the graph: noisy blocks in, the network's estimates out."""

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

from stillscan.operators.graph.stages import DenoisingStage


class DenoiseOperator(Operator):  # type: ignore[misc]  # holoscan has no type information
    """Denoises block by block.

    Ports:
        in `block`: a `VolumeBlock` or a `SeriesFailed`.
        out `estimated_block`: an `EstimatedBlock` or a `SeriesFailed`, once per series.
    """

    def __init__(
        self, fragment: Fragment, *conditions: Any, stage: DenoisingStage, name: str
    ) -> None:
        """`stage` holds the loaded networks."""
        self._stage = stage
        super().__init__(fragment, *conditions, name=name)

    def setup(self, spec: OperatorSpec) -> None:
        """Name the ports."""
        spec.input("block")
        spec.output("estimated_block")

    def compute(
        self, op_input: InputContext, op_output: OutputContext, context: ExecutionContext
    ) -> None:
        """Denoise one block and pass it on."""
        estimated = self._stage.take(op_input.receive("block"))
        if estimated is not None:
            op_output.emit(estimated, "estimated_block")
