"""The results of `stillscan evaluate` as files: CSV, Markdown, JSON, plots, one HTML page.

The page contains its plots and loads nothing. It shows figures, but no image of the data.
"""

from __future__ import annotations

import csv
import json
import statistics
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stillscan.app.evaluation.images import ReferenceSeries
from stillscan.app.evaluation.plots import draw_plots
from stillscan.app.evaluation.summary import ALL, METRICS, STUDENT, groups
from stillscan.app.evaluation.tables import Table, all_tables
from stillscan.operators.errors import NotWritableError
from stillscan.operators.report.rendering import render

Record = dict[str, Any]

PAGE = Path(__file__).with_name("templates") / "evaluation.html.j2"


def write_results(
    out: Path, records: Sequence[Record], series: Sequence[ReferenceSeries], command: str
) -> Path:
    """Write all results into a folder and return the path of the page.

    Args:
        out: the folder, which exists.
        records: the measurements.
        series: the series that were measured.
        command: command line that reproduces the results.

    Raises:
        NotWritableError: if a file cannot be written.
    """
    tables = [_series_table(series), *all_tables(records)]
    try:
        plots = draw_plots(records, out)
        _write_csv(out / "summary.csv", _summary(records))
        _write_csv(out / "slices.csv", _slices(records))
        _write_csv(out / "lesions.csv", _lesions(records))
        (out / "evaluation.md").write_text(_markdown(tables, plots, command), encoding="utf-8")
        text = json.dumps(_figures(records, command), indent=1)
        (out / "evaluation.json").write_text(text, encoding="utf-8")
        page = out / "evaluation.html"
        page.write_text(_page(tables, plots, command), encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise NotWritableError(f"results cannot be written to {out}: {reason}") from error
    return page


def _series_table(series: Sequence[ReferenceSeries]) -> Table:
    rows = tuple(
        (
            each.name,
            each.domain,
            str(len(each.slices)),
            f"{each.slices.shape[2]} x {each.slices.shape[1]}",
            "" if each.own_sigma is None else f"{255 * each.own_sigma:.2f}",
        )
        for each in series
    )
    note = "The images count as the truth; `own noise` is measured in them, sigma / 255."
    return Table("Images", note, ("series", "domain", "slices", "matrix", "own noise"), rows)


def _summary(records: Sequence[Record]) -> Iterator[Record]:
    """Yield a line per domain, noise, method and metric."""
    for group in [*groups(records), *groups(records, domains=True)]:
        for method in group.methods:
            for metric in METRICS if group.domain == ALL else ("psnr", "ssim"):
                interval = group.mean(method, metric)
                if interval is not None:
                    yield {
                        "domain": group.domain,
                        "noise": group.noise,
                        "middle of one slice": group.costly,
                        "method": method,
                        "metric": metric,
                        "mean": interval.value,
                        "low": interval.low,
                        "high": interval.high,
                        "slices": group.slices,
                        "subjects": group.subjects,
                    }


def _slices(records: Sequence[Record]) -> Iterator[Record]:
    for record in records:
        whose = {key: record[key] for key in record if key not in ("slices", "lesions")}
        if record["kind"] == "simulated":
            yield from (whose | row for row in record["slices"])


def _lesions(records: Sequence[Record]) -> Iterator[Record]:
    for record in records:
        whose = {key: record[key] for key in record if key not in ("slices", "lesions")}
        if record["kind"] == "simulated":
            yield from (whose | row for row in record["lesions"])


def _write_csv(path: Path, rows: Iterator[Record]) -> None:
    lines = list(rows)
    names = list(dict.fromkeys(name for line in lines for name in line))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(lines)


def _figures(records: Sequence[Record], command: str) -> Record:
    """Collect the results for programs; bundles quote `simulated`, `coverage` and `repeats`."""
    return {
        "command": command,
        "simulated": [
            {key: record[key] for key in ("series", "domain", "noise", "method", "conditioning")}
            | {
                metric: statistics.mean(row[metric] for row in record["slices"])
                for metric in ("psnr", "ssim")
            }
            for record in _whole(records)
        ],
        "coverage": list(_covered(records)),
        "repeats": list(_repeats(records)),
        "tables": [asdict(table) for table in all_tables(records)],
    }


def _whole(records: Sequence[Record]) -> Iterator[Record]:
    """Yield measurements on simulated noise, except those on the middles of slices."""
    for record in records:
        if record["kind"] == "simulated" and record.get("extent", "whole") == "whole":
            yield record


def _covered(records: Sequence[Record]) -> Iterator[Record]:
    """Yield how often the student's error stays within one and two of its standard deviations."""
    pairs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for record in _whole(records):
        if record["method"] == STUDENT:
            pairs.setdefault((record["domain"], record["noise"]), []).extend(
                (row["within_one"], row["within_two"])
                for row in record["slices"]
                if "within_one" in row
            )
    for (domain, noise), found in pairs.items():
        if found:
            one, two = (statistics.mean(part) for part in zip(*found, strict=True))
            yield {"domain": domain, "noise": noise, "within_one": one, "within_two": two}


def _repeats(records: Sequence[Record]) -> Iterator[Record]:
    """Yield per scan the RMS difference from the repeat, for noisy image, student and NLM."""
    scans: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        if record["kind"] == "repeat":
            scans.setdefault(record["scan"], {})[record["method"]] = record["slices"]
    for scan, methods in scans.items():
        if STUDENT not in methods:
            continue
        rows = methods[STUDENT]
        found: Record = {
            "scan": scan,
            "slices": len(rows),
            "better": sum(row["after"] < row["before"] for row in rows),
            "noisy": statistics.mean(row["before"] for row in rows),
            "student": statistics.mean(row["after"] for row in rows),
            "worst": max(row["after"] / row["before"] for row in rows),
        }
        if "NLM" in methods:
            found["nlm"] = statistics.mean(row["after"] for row in methods["NLM"])
        yield found


def _markdown(tables: Sequence[Table], plots: Sequence[tuple[str, Path]], command: str) -> str:
    parts = ["# Evaluation", "", f"Made by `{command}`.", ""]
    parts += [table.markdown() for table in tables]
    parts += [f"![{title}]({path.name})\n" for title, path in plots]
    return "\n".join(parts)


def _page(tables: Sequence[Table], plots: Sequence[tuple[str, Path]], command: str) -> str:
    pictures = [(title, b64encode(path.read_bytes()).decode("ascii")) for title, path in plots]
    return render(PAGE, command=command, plots=pictures, tables=tables)
