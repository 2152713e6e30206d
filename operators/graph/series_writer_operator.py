"""Last operator of the graph: writes derived series into the staging folder."""

from __future__ import annotations

from stillscan.operators.graph.stage_operator import StageOperator


class SeriesWriterOperator(StageOperator):
    """Writes derived series; its stage is a `WritingStage`, which lists their outcomes.

    Ports:
        in `denoised_block`: a `SeriesBlock` of a `DenoisedBlock`, or a `SeriesFailed`.
    """

    input_port = "denoised_block"
