"""Denoise every series of a folder, then read from the report what became of each.

python examples/denoise_folder.py IN OUT

OUT gets one folder per derived series, and `report/` with result.json and a page for each series.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from stillscan import Job, load_settings, run


def main(source: Path, output: Path) -> int:
    """Denoise `source` into `output`; returns the exit code that `stillscan denoise` would."""
    settings = load_settings()
    settings = replace(settings, output=replace(settings.output, report=True))
    result = run(Job(source, output, settings))

    report = json.loads((output / "report" / "result.json").read_text(encoding="utf-8"))
    for series in report["series"]:
        line = f"{series['modality']}, {series['slices']} slices: {series['status']}"
        if series["status"] == "derived":
            noise = series["noise"]
            line += f", noise {noise['before']:.3g} -> {noise['after']:.3g} {noise['unit']}"
            line += f", in {output / series['derived']['folder']}"
        else:
            line += f", {series['reason']}"
        print(line)
    return int(result.exit_code)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
