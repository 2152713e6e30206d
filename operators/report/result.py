"""`report/`: results of a run, for programs (`result.json`) and for people (pages).

    report/result.json                       the whole run
    report/index.html                        the whole run, with a thumbnail of each series
    report/<derived SeriesInstanceUID>.html  all slices before and after, and the measurements

A radiograph that is one of several in its series has an entry and a page of its own, named by its
derived SOPInstanceUID.

`result.json` holds no patient data. Its members:

    schema        "stillscan-result/1"
    application   name, version
    exit_code     exit code of the process; `exit_meaning` in words
    seconds       wall time of the run
    series        a list, in the order of processing:
        source_series_instance_uid   null if not in the files
        source_sop_instance_uid      of the one image that this is about; null for a whole series
        status                       "derived" | "refused" | "not-selected"
        reason, message              a stable code and a sentence; null for derived series
        modality, slices, seconds
        noise                        {before, after, unit, expected_error_change}: standard
                                     deviation in flat places, and by which share the error in the
                                     foreground is expected to change; null if not measured
        verdict                      {decision, reasons, measurements} of the quality gate
        warnings                     warnings about the series, for users
        derived                      {series_instance_uid, folder, instances, clipped_share,
                                     mean_shift}; null unless derived
        objects                      a list of {kind, series_instance_uid, instances}: what lies
                                     beside the derived series in folders of its own
        method                       {bundle, model_sha256, mode, strength, engine, precision,
                                     device}; null unless derived
    skipped_files a list of {file, reason, message}
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stillscan.operators.errors import ExitCode
from stillscan.operators.report.outcome import SeriesOutcome, SkippedFile
from stillscan.operators.report.page import index_page

SCHEMA = "stillscan-result/1"


def write_result(
    folder: Path,
    outcomes: Sequence[SeriesOutcome],
    skipped: Sequence[SkippedFile],
    *,
    application: tuple[str, str],
    exit_code: ExitCode,
    seconds: float,
) -> None:
    """Write `result.json` and `index.html` of a run; `application` is name and version."""
    name, version = application
    result = {
        "schema": SCHEMA,
        "application": {"name": name, "version": version},
        "exit_code": int(exit_code),
        "exit_meaning": exit_code.name.lower().replace("_", "-"),
        "seconds": round(seconds, 3),
        "series": [series_result(each) for each in outcomes],
        "skipped_files": [
            {"file": each.name, "reason": each.reason, "message": each.message} for each in skipped
        ],
    }
    folder.mkdir(exist_ok=True)
    text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "result.json").write_text(text + "\n", encoding="utf-8")
    (folder / "index.html").write_text(index_page(outcomes, skipped), encoding="utf-8")


def series_result(outcome: SeriesOutcome) -> dict[str, Any]:
    """Build the entry of one series in `result.json`."""
    verdict, derived, made = outcome.verdict, outcome.derived, outcome.provenance
    return {
        "source_series_instance_uid": outcome.series_instance_uid,
        "source_sop_instance_uid": outcome.sop_instance_uid or None,
        "status": outcome.status,
        "reason": outcome.reason or None,
        "message": outcome.message or None,
        "modality": outcome.modality or None,
        "slices": outcome.slices,
        "seconds": round(outcome.seconds, 3),
        "noise": {
            "before": _finite(outcome.noise_before),
            "after": _finite(outcome.noise_after),
            "unit": outcome.unit or None,
            "expected_error_change": _finite(outcome.error_change),
            "measurements": [
                {"name": each.name, "sigma": _finite(each.sigma), "proven": each.proven}
                for each in outcome.witnesses
            ],
        },
        "repeats": outcome.repeats
        and {
            "slices": outcome.repeats.slices,
            "confirmed_share": outcome.repeats.confirmed_share,
            "difference_before": _finite(outcome.repeats.before),
            "difference_after": _finite(outcome.repeats.after),
        },
        "verdict": verdict
        and {
            "decision": verdict.decision,
            "reasons": list(verdict.reasons),
            "measurements": {key: _finite(value) for key, value in verdict.measurements.items()},
        },
        "warnings": list(outcome.warnings),
        "derived": derived
        and {
            "series_instance_uid": derived.series_instance_uid,
            "folder": derived.folder.name,
            "instances": derived.instances,
            "clipped_share": _finite(derived.clipped_share),
            "mean_shift": _finite(derived.mean_shift),
        },
        "objects": [asdict(each) for each in outcome.objects],
        "method": made
        and {
            "bundle": made.bundle,
            "model_sha256": made.model_sha256,
            "mode": made.mode,
            "strength": made.strength,
            "confirmed_share": made.confirmed_share,
            "engine": made.engine,
            "precision": made.precision,
            "device": made.device,
        },
    }


def result_of_series(outcomes: Sequence[SeriesOutcome]) -> dict[str, Any]:
    """Build the entry of a series of which something was derived.

    Where its images were denoised one by one, the entry is that of the first derived one without
    its noise, with the entries of all of them as `images`.
    """
    first = next(each for each in outcomes if each.derived is not None)
    if len(outcomes) == 1:
        return series_result(first)
    images = [series_result(each) for each in outcomes]
    return series_result(first) | {"noise": {}, "images": images}


def not_derived(outcomes: Sequence[SeriesOutcome]) -> str:
    """Which images of a series were not derived beside others that were; "" for none."""
    why = [f"{each.reason}: {each.message}" for each in outcomes if each.derived is None]
    if not why:
        return ""
    return f"{len(why)} of {len(outcomes)} images not derived: {'; '.join(why)}"


def _finite(value: float | None) -> float | None:
    """Return a finite number, or None."""
    return float(value) if value is not None and math.isfinite(value) else None
