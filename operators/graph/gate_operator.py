"""Third operator of the graph: the quality gate bounds and checks each denoised block."""

from __future__ import annotations

from stillscan.operators.graph.stage_operator import StageOperator


class GateOperator(StageOperator):
    """Applies the quality gate and the strength block by block; its stage is a `GateStage`.

    Ports:
        in `estimated_block`: a `SeriesBlock` of an `EstimatedBlock`, or a `SeriesFailed`.
        out `denoised_block`: a `SeriesBlock` of a `DenoisedBlock`, or a `SeriesFailed`.
    """

    input_port = "estimated_block"
    output_port = "denoised_block"
