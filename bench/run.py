"""`make bench`: speed, memory and quality beside NLM, on this machine, in one run.

Prints a table and saves it with the machine's description under `bench/results/`, as JSON for
programs and Markdown for people. Figures of different machines, and of one machine under different
load, are not comparable.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.machine import describe_machine
from bench.student_speed import SliceTime, measure_slices
from bench.whole_run import WholeRun, measure_whole_run

RUNS = ((20, 256), (200, 512), (800, 512))  # slices, matrix; the last one shows memory alone
RESULTS = Path(__file__).with_name("results")
DEFAULT_BUNDLE = Path("models/bundles/mr")


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE)
    parser.add_argument("--mode", default="student", help="of the whole runs")
    parser.add_argument("--skip-slices", action="store_true", help="measure whole runs alone")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    machine = describe_machine()
    slices = [] if arguments.skip_slices else measure_slices(arguments.bundle)
    runs = []
    for count, matrix in RUNS:
        print(f"whole run: {count} x {matrix}x{matrix} ...", flush=True)
        runs.append(measure_whole_run(count, matrix, ("--mode", arguments.mode)))
    text = markdown(machine, slices, runs)
    print(text)
    save(arguments.out, text, machine, slices, runs)


def markdown(machine: dict[str, str], slices: list[SliceTime], runs: list[WholeRun]) -> str:
    """The figures as a Markdown document."""
    lines = ["# Benchmark", ""]
    lines += [f"- {name}: {value}" for name, value in machine.items()]
    if slices:
        lines += [
            "",
            "One 512x512 slice of the generated head, one thread:",
            "",
            "| method | core-seconds | PSNR (dB) | in the head (dB) | SSIM | lesion contrast |",
            "|---|---|---|---|---|---|",
            *(
                f"| {one.method} | {one.core_seconds:.3f} | {one.quality.psnr:.2f} | "
                f"{one.quality.psnr_head:.2f} | {one.quality.ssim:.3f} | "
                f"{one.quality.lesion_contrast:.0%} |"
                for one in slices
            ),
        ]
    lines += [
        "",
        "Whole runs of `stillscan denoise` (start-up, DICOM in and out, report):",
        "",
        "Memory in MiB: peak of the process, and of its largest child (which parses and decodes).",
        "",
        "| series | wall (s) | core-seconds | process | child |",
        "|---|---|---|---|---|",
        *(
            f"| {run.slices} x {run.matrix}x{run.matrix} | {run.seconds:.2f} | "
            f"{run.core_seconds:.1f} | {run.parent_mib:.0f} | {run.child_mib:.0f} |"
            for run in runs
        ),
    ]
    return "\n".join(lines) + "\n"


def save(
    folder: Path,
    text: str,
    machine: dict[str, str],
    slices: list[SliceTime],
    runs: list[WholeRun],
) -> None:
    """Write the figures as `<time>.json` and `<time>.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    name = time.strftime("%Y-%m-%dT%H%M%S")
    record: dict[str, Any] = {
        "machine": machine,
        "slices": [asdict(one) for one in slices],
        "runs": [asdict(run) for run in runs],
    }
    (folder / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    print(f"saved: {folder / name}.json, {folder / name}.md")


if __name__ == "__main__":
    main()
