"""Training curves: a CSV file always, TensorBoard and MLflow if they are installed.

They contain losses, learning rates and the profile; no image data and no file names.
"""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from stillscan.app.training.checkpoints import load_json, save_json

MLFLOW_PLACE = "MLFLOW_TRACKING_URI"  # MLflow's own variable for the address of its server


log_messages = logging.getLogger("stillscan")


class Log(Protocol):
    """A destination of training figures."""

    def write(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        """Write the figures of a stage after an update."""
        ...


class CsvLog:
    """`log.csv`: one row for each figure; a resumed run appends."""

    def __init__(self, path: Path) -> None:
        new = not path.exists()
        self._file = path.open("a", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file)
        if new:
            self._rows.writerow(("stage", "step", "figure", "value"))

    def write(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        """Append the figures and flush the file."""
        for name, value in figures.items():
            self._rows.writerow((stage, step, name, f"{value:.6g}"))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoardLog:
    """Event files that `tensorboard --logdir` shows."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def write(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        """Add one point to each curve `stage/figure`."""
        for name, value in figures.items():
            self._writer.add_scalar(f"{stage}/{name}", value, step)

    def close(self) -> None:
        """Write buffered points."""
        self._writer.close()


class MlflowLog:
    """An MLflow run; a resumed training continues the same run.

    It is sent to the server in MLFLOW_TRACKING_URI, otherwise written to a database in the run's
    folder. If MLflow fails, the training continues without it.
    """

    def __init__(self, folder: Path, parameters: Mapping[str, Any]) -> None:
        import mlflow
        from mlflow.exceptions import MlflowException

        self._mlflow, self._fault = mlflow, MlflowException
        self._works = False
        with self._going_on():
            if not os.environ.get(MLFLOW_PLACE):
                mlflow.set_tracking_uri(f"sqlite:///{folder.resolve() / 'mlflow.db'}")
            known = folder / "mlflow.json"
            if known.exists():
                mlflow.start_run(run_id=load_json(known))
            else:
                mlflow.set_experiment("stillscan train")
                run = mlflow.start_run()
                mlflow.log_params(dict(parameters))
                save_json(run.info.run_id, known)
            self._works = True

    def write(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        """Add one point to each curve `stage.figure`."""
        if self._works:
            stage = stage.replace(" ", "_")
            found = {f"{stage}.{name}": value for name, value in figures.items()}
            with self._going_on():
                self._mlflow.log_metrics(found, step=step)

    def close(self) -> None:
        """Mark the run as finished; a resumed training opens it again."""
        if self._works:
            with self._going_on():
                self._mlflow.end_run()

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Stop logging, but not the training, if the server fails or is not MLflow."""
        try:
            yield
        except self._fault as error:
            self._works = False
            log_messages.warning("MLflow failed and gets no more figures: %s", type(error).__name__)


@contextmanager
def open_logs(folder: Path, parameters: Mapping[str, Any]) -> Iterator[tuple[Log, ...]]:
    """Open all logs that are available on this machine.

    Args:
        folder: folder of the run.
        parameters: parameters of the run, for MLflow.
    """
    with ExitStack() as open_ones:
        found: list[Log] = []
        log = CsvLog(folder / "log.csv")
        open_ones.callback(log.close)
        found.append(log)
        if find_spec("tensorboard") is not None:
            board = TensorBoardLog(folder / "tensorboard")
            open_ones.callback(board.close)
            found.append(board)
        if find_spec("mlflow") is not None:
            try:
                flow = MlflowLog(folder, parameters)
            except ImportError as error:
                log_messages.warning("MLflow is installed but cannot be imported: %s", error.name)
            else:
                open_ones.callback(flow.close)
                found.append(flow)
        yield tuple(found)
