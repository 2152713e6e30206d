"""Base of the operators: a named input, a stage, and a named output."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

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


class Stage(Protocol):
    """A stage of the pipeline as plain code."""

    def take(self, message: Any) -> Any:
        """Process one message; return None if there is nothing to pass on."""
        ...


class StageOperator(Operator):  # type: ignore[misc]  # holoscan has no type information
    """Passes each message to a stage and emits its result.

    Attributes:
        input_port, output_port: names of the ports; output_port is None in the last operator.
    """

    input_port: ClassVar[str]
    output_port: ClassVar[str | None] = None

    def __init__(self, fragment: Fragment, *conditions: Any, stage: Stage, name: str) -> None:
        """Set the stage that does the work."""
        self._stage = stage
        super().__init__(fragment, *conditions, name=name)

    def setup(self, spec: OperatorSpec) -> None:
        """Define the ports."""
        spec.input(self.input_port)
        if self.output_port is not None:
            spec.output(self.output_port)

    def compute(
        self, op_input: InputContext, op_output: OutputContext, context: ExecutionContext
    ) -> None:
        """Process one message and pass the result on."""
        result = self._stage.take(op_input.receive(self.input_port))
        if result is not None and self.output_port is not None:
            op_output.emit(result, self.output_port)
