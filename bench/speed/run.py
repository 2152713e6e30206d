"""`make bench`: measures speed, memory and quality beside NLM on this machine.

Core-seconds of every stage, engine and peer, share of the machine's convolution peak, growth with
pixels and slices, whole runs. Prints tables and saves them with the machine's description under
`bench/results/`, as JSON for programs, Markdown and a plot for people. Figures of different
machines, and of one machine under different load, are not comparable.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.machine import describe_machine
from bench.speed.growth import Growth, growth_with_pixels, growth_with_slices
from bench.speed.peak import peak_gflops, precisions
from bench.speed.speed_plot import plot_stages
from bench.speed.stages import MATRIX, StageTime, measure_stages
from bench.speed.student_speed import SliceTime, measure_slices
from bench.speed.whole_run import WholeRun, measure_whole_run
from stillscan.app.process_setup import share_one_heap

RUNS = ((20, 256), (1, 3000), (50, 512), (200, 512))  # slices, matrix
LONG = ((800, 512),)  # shows whether memory grows; takes minutes
FEWEST_OF_GROWTH = 50  # fewest slices of runs that measure growth
RESULTS = Path(__file__).resolve().parents[1] / "results"
DEFAULT_BUNDLE = Path("models/bundles/mr")


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE)
    parser.add_argument("--mode", default="student", help="mode of the whole runs")
    parser.add_argument("--engine", default="auto", help="engine of the whole runs")
    parser.add_argument("--skip-slices", action="store_true", help="skip the quality beside NLM")
    parser.add_argument("--skip-stages", action="store_true", help="skip stages, peers and growth")
    parser.add_argument("--skip-runs", action="store_true", help="skip whole runs")
    parser.add_argument("--long", action="store_true", help="also measure 800 slices")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    share_one_heap()  # as the application does
    machine = describe_machine()
    machine |= {f"convolution peak, {p}": f"{peak_gflops(p):.0f} GFLOP/s" for p in precisions()}
    stages = []
    growth = []
    if not arguments.skip_stages:
        for stage in measure_stages(arguments.bundle):
            print(f"{stage.what}, {stage.threads} threads: {stage.core_seconds:.4f}", flush=True)
            stages.append(stage)
        growth.append(growth_with_pixels(arguments.bundle))
    slices = [] if arguments.skip_slices else measure_slices(arguments.bundle)
    runs = []
    for count, matrix in () if arguments.skip_runs else RUNS + (LONG if arguments.long else ()):
        print(f"whole run: {count} x {matrix}x{matrix} ...", flush=True)
        options = ("--mode", arguments.mode, "--engine", arguments.engine)
        runs.append(measure_whole_run(count, matrix, options))
    long_runs = [run for run in runs if run.matrix == MATRIX and run.slices >= FEWEST_OF_GROWTH]
    if len(long_runs) > 1:
        start = measure_whole_run(1, MATRIX, ("--engine", arguments.engine)).core_seconds
        growth.append(growth_with_slices(long_runs, start))
    text = markdown(machine, slices, runs, stages, growth)
    print(text)
    save(arguments.out, text, Record(machine, slices, runs, stages, growth))


@dataclass(frozen=True)
class Record:
    """All measurements of one benchmark."""

    machine: dict[str, str]
    slices: list[SliceTime]
    runs: list[WholeRun]
    stages: list[StageTime]
    growth: list[Growth]


def markdown(
    machine: dict[str, str],
    slices: list[SliceTime],
    runs: list[WholeRun],
    stages: Sequence[StageTime] = (),
    growth: Sequence[Growth] = (),
) -> str:
    """Return the figures as a Markdown document."""
    lines = ["# Benchmark", ""]
    lines += [f"- {name}: {value}" for name, value in machine.items()]
    if stages:
        lines += ["", *_stage_lines(stages)]
    lines += [""] if growth else []
    lines += [f"- {one.of}: time ~ size ^ {one.exponent:.2f}" for one in growth]
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


def _stage_lines(stages: Sequence[StageTime]) -> list[str]:
    """Format a table of stages and peers; losses are relative to the student in float32."""
    lines = [
        f"One {MATRIX}x{MATRIX} slice, by stage:",
        "",
        "| what | threads | core-seconds | wall (s) | of the peak | PSNR lost (dB) |",
        "|---|---|---|---|---|---|",
    ]
    for one in stages:
        peak = "" if one.share_of_peak is None else f"{one.share_of_peak:.0%}"
        loss = "" if one.psnr_loss is None else f"{one.psnr_loss:.3f}"
        lines.append(
            f"| {one.what} | {one.threads} | {one.core_seconds:.4f} | {one.wall_seconds:.4f} | "
            f"{peak} | {loss} |"
        )
    return lines


def save(folder: Path, text: str, record: Record) -> None:
    """Write the figures as `<time>.json`, `<time>.md` and, for stages, `<time>.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / time.strftime("%Y-%m-%dT%H%M%S")
    growth = [{**asdict(one), "exponent": one.exponent} for one in record.growth]
    figures = {**asdict(record), "growth": growth}
    base.with_suffix(".json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    base.with_suffix(".md").write_text(text, encoding="utf-8")
    if record.stages:
        plot_stages(record.stages, base.with_suffix(".png"))
    print(f"saved: {base}.json, .md" + (", .png" if record.stages else ""))


if __name__ == "__main__":
    main()
