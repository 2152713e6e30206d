"""Second operator of the graph: runs the network on each block."""

from __future__ import annotations

from stillscan.operators.graph.stage_operator import StageOperator


class DenoiseOperator(StageOperator):
    """Denoises block by block; its stage is an `EstimatingStage`.

    Ports:
        in `block`: a `SeriesBlock` of a `VolumeBlock`, or a `SeriesFailed`.
        out `estimated_block`: a `SeriesBlock` of an `EstimatedBlock`, or a `SeriesFailed`.
    """

    input_port = "block"
    output_port = "estimated_block"
