"""Mercure's contract: `task.json` in the input brings settings, `result.json` takes figures back.

Mercure starts a module with MERCURE_IN_DIR and MERCURE_OUT_DIR, its files in the first: DICOM,
`.tags`, and `task.json`, whose `process.settings` are the module's settings merged with the rule's.
Ours are sections of `app.yaml`, for example `{"denoise": {"strength": "low"}}`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPORT = "report"  # of `stillscan.app.pipeline.output_folder`
DERIVED, PARTLY_DERIVED = 0, 5  # of `stillscan.operators.errors.ExitCode`
SECTIONS = ("selection", "denoise", "gate", "output")


@dataclass(frozen=True)
class MercureTask:
    """One run as a Mercure module.

    Attributes:
        input: the folder with the images and `task.json`.
        output: the folder that Mercure takes results from.
    """

    input: Path
    output: Path

    def settings(self) -> Mapping[str, Any]:
        """What the task wants to be otherwise than in `app.yaml`.

        Raises:
            ValueError: if `task.json` is none of Mercure's, or names a section that is not there.
        """
        file = self.input / "task.json"
        if not file.exists():
            return {}
        try:
            task = json.loads(file.read_text(encoding="utf-8"))
            process = task["process"]
            settings = (process[0] if isinstance(process, list) else process).get("settings") or {}
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise ValueError(
                f"task.json has no process.settings ({type(error).__name__})"
            ) from None
        if not isinstance(settings, Mapping) or not set(settings) <= set(SECTIONS):
            raise ValueError(
                f"process.settings of task.json may have the sections {', '.join(SECTIONS)}"
            )
        return settings

    @contextmanager
    def settings_file(self, shipped: Path) -> Iterator[Path]:
        """A settings file for this run: the shipped ones with those of the task, and a report.

        It lies hidden in the output, the only folder that is surely writable, and goes at the end.

        Raises:
            ValueError: see `settings`.
        """
        import yaml  # not at the top: the other commands of the image need none

        merged = merge(yaml.safe_load(shipped.read_text(encoding="utf-8")), self.settings())
        merged = merge(merged, {"output": {"report": True}})
        with tempfile.TemporaryDirectory(prefix=".task-", dir=self.output) as folder:
            file = Path(folder) / "app.yaml"
            file.write_text(json.dumps(merged), encoding="utf-8")  # JSON is YAML
            yield file

    def report(self, code: int) -> int:
        """Turn the report of the run into Mercure's `result.json`; returns Mercure's exit code.

        Pages and pictures stay only where the task asked for a report.
        """
        if code not in (DERIVED, PARTLY_DERIVED):
            return code
        result = json.loads((self.output / REPORT / "result.json").read_text(encoding="utf-8"))
        if code == PARTLY_DERIVED:
            result["__mercure_notification"] = {"text": refusals(result)}
        wanted = self.settings().get("output") or {}
        if not wanted.get("report", False):
            shutil.rmtree(self.output / REPORT)
        text = json.dumps(result, indent=2, ensure_ascii=False)
        (self.output / "result.json").write_text(text + "\n", encoding="utf-8")
        return DERIVED


def task_of(environment: Mapping[str, str]) -> MercureTask | None:
    """The task that Mercure started this container for, or None where it did not."""
    folders = environment.get("MERCURE_IN_DIR"), environment.get("MERCURE_OUT_DIR")
    if folders[0] and folders[1]:
        return MercureTask(Path(folders[0]), Path(folders[1]))
    return None


def merge(settings: Any, wanted: Any) -> Any:
    """`settings` with what `wanted` says otherwise, section by section."""
    if not isinstance(settings, Mapping) or not isinstance(wanted, Mapping):
        return wanted
    return {**settings, **{key: merge(settings.get(key), wanted[key]) for key in wanted}}


def refusals(result: Mapping[str, Any]) -> str:
    """One line that says how many series were refused and for which reasons."""
    refused = [each for each in result["series"] if each["status"] == "refused"]
    reasons = ", ".join(sorted({str(each["reason"]) for each in refused}))
    return f"Stillscan refused {len(refused)} of {len(result['series'])} series: {reasons}"
