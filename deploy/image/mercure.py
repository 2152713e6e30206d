"""Interface of Mercure: `task.json` in the input has settings, `result.json` gets figures.

Mercure starts a module with MERCURE_IN_DIR and MERCURE_OUT_DIR, its files in the first: DICOM,
`.tags`, and `task.json`, whose `process.settings` are the module's settings merged with the rule's.
Stillscan's settings are sections of `app.yaml`, for example `{"denoise": {"strength": "low"}}`.
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

REPORT = "report"  # as in `stillscan.app.pipeline.output_folder`
DERIVED, PARTLY_DERIVED = 0, 5  # as in `stillscan.operators.errors.ExitCode`
SECTIONS = ("selection", "denoise", "gate", "output")


@dataclass(frozen=True)
class MercureTask:
    """One run as a Mercure module.

    Attributes:
        input: the folder with the images and `task.json`.
        output: the folder from which Mercure takes results.
    """

    input: Path
    output: Path

    def settings(self) -> Mapping[str, Any]:
        """Read the settings of the task, which override `app.yaml`.

        Raises:
            ValueError: if `task.json` is not one of Mercure's, or names an unknown section.
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
        """Write a settings file for this run: shipped settings, those of the task, and a report.

        It is a hidden file in the output, the only folder sure to be writable, and is removed.

        Raises:
            ValueError: see `settings`.
        """
        import yaml  # imported here: the other commands of the image do not need it

        merged = merge(yaml.safe_load(shipped.read_text(encoding="utf-8")), self.settings())
        merged = merge(merged, {"output": {"report": True}})
        with tempfile.TemporaryDirectory(prefix=".task-", dir=self.output) as folder:
            file = Path(folder) / "app.yaml"
            file.write_text(json.dumps(merged), encoding="utf-8")  # JSON is YAML
            yield file

    def report(self, code: int) -> int:
        """Turn the report of the run into Mercure's `result.json`; return Mercure's exit code.

        Pages and pictures are kept only if the task requested a report.
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
    """Return the Mercure task of this container, or None."""
    folders = environment.get("MERCURE_IN_DIR"), environment.get("MERCURE_OUT_DIR")
    if folders[0] and folders[1]:
        return MercureTask(Path(folders[0]), Path(folders[1]))
    return None


def merge(settings: Any, wanted: Any) -> Any:
    """Override `settings` by `wanted`, section by section."""
    if not isinstance(settings, Mapping) or not isinstance(wanted, Mapping):
        return wanted
    return {**settings, **{key: merge(settings.get(key), wanted[key]) for key in wanted}}


def refusals(result: Mapping[str, Any]) -> str:
    """Return one line with the number of refused series and the reasons."""
    refused = [each for each in result["series"] if each["status"] == "refused"]
    reasons = ", ".join(sorted({str(each["reason"]) for each in refused}))
    return f"Stillscan refused {len(refused)} of {len(result['series'])} series: {reasons}"
