"""The curves of a run: a CSV file always, TensorBoard and MLflow where they are installed.

They get losses, learning rates and the profile; nothing of the images, and no name of a file.
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

MLFLOW_PLACE = "MLFLOW_TRACKING_URI"  # MLflow's own variable: where its server is


log_messages = logging.getLogger("stillscan")


class Log(Protocol):
    """Somewhere to write figures to."""

    def write(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        """Figures of a stage after an update."""
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
        """Append and flush."""
        for name, value in figures.items():
            self._rows.writerow((stage, step, name, f"{value:.6g}"))
        self._file.flush()

    def close(self) -> None:
        """End the file."""
        self._file.close()


class TensorBoardLog:
    """Event files that `tensorboard --logdir` shows."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def write(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        """One point on each curve `stage/figure`."""
        for name, value in figures.items():
            self._writer.add_scalar(f"{stage}/{name}", value, step)

    def close(self) -> None:
        """Write what is held back."""
        self._writer.close()


class MlflowLog:
    """An MLflow run; a resumed run goes on in the same one.

    It goes to the server that MLFLOW_TRACKING_URI names, else into a data base in the run's folder.
    Where MLflow fails, the training goes on without it.
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
        """One point on each curve `stage.figure`."""
        if self._works:
            stage = stage.replace(" ", "_")
            found = {f"{stage}.{name}": value for name, value in figures.items()}
            with self._going_on():
                self._mlflow.log_metrics(found, step=step)

    def close(self) -> None:
        """The run is finished, or goes on another day."""
        if self._works:
            with self._going_on():
                self._mlflow.end_run()

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """A server that is gone, or none that fits, ends the log and not the training."""
        try:
            yield
        except self._fault as error:
            self._works = False
            log_messages.warning("no more figures go to MLflow: %s", type(error).__name__)


@contextmanager
def open_logs(folder: Path, parameters: Mapping[str, Any]) -> Iterator[tuple[Log, ...]]:
    """All logs that this machine can write.

    Args:
        folder: of the run.
        parameters: of the run, for MLflow.
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
