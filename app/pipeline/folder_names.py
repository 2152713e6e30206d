"""Names for the folders of derived series that tell a person what they hold.

Descriptions may identify a patient: such names are given where somebody asks for them, and are
never logged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from stillscan.app.pipeline.output_folder import REPORT
from stillscan.operators.errors import SettingsError
from stillscan.operators.output_faults import naming_output_faults
from stillscan.operators.reading.read_series import Candidate
from stillscan.operators.report.outcome import SeriesOutcome

FIELDS = ("s", "d", "m", "u")
NAME_EXPECTED = (
    "%s SeriesNumber of the derived series, %d SeriesDescription of the source, %m Modality, "
    "%u SeriesInstanceUID of the derived series"
)
LONGEST = 60  # characters: with 4 bytes each a file system still takes the name
TELLING_APART = 8  # last digits of a UID


def require_pattern(pattern: str) -> None:
    """Check a pattern such as `%s_%d`.

    Raises:
        SettingsError: if it has no field, or an unknown one.
    """
    found = re.findall("%(.?)", pattern)
    if not found or not set(found) <= set(FIELDS):
        raise SettingsError(f"name is '{pattern}'; expected {NAME_EXPECTED}")


def with_named_folders(
    outcomes: Iterable[SeriesOutcome],
    candidates: Iterable[Candidate],
    staging: Path,
    output: Path,
    pattern: str,
) -> tuple[SeriesOutcome, ...]:
    """Rename the staged folders of derived series after a pattern.

    A name that another series has, in this run or in the output, gets the end of the UID.

    Raises:
        SettingsError: as `require_pattern`.
        OutputError: if a folder cannot be renamed.
    """
    require_pattern(pattern)
    described = {
        each.series_instance_uid: each.instances[0].known.series_description for each in candidates
    }
    parts = pattern.split("%")
    taken = {REPORT}
    names: dict[str, str] = {}  # by derived SeriesInstanceUID, which radiographs share
    renamed = []
    for outcome in outcomes:
        derived = outcome.derived
        if derived is not None:
            uid = derived.series_instance_uid
            if uid not in names:
                values = {
                    "s": str(derived.series_number or ""),
                    "d": described.get(outcome.series_instance_uid or "", ""),
                    "m": outcome.modality,
                    "u": uid,
                }
                name = parts[0] + "".join(values[each[0]] + each[1:] for each in parts[1:])
                name = re.sub(r"[^\w.-]+", "_", name)[:LONGEST].strip("._") or "series"
                beside = output / name / f"{derived.sop_instance_uids[0]}.dcm"
                if name in taken or ((output / name).exists() and not beside.exists()):
                    name += f"_{uid[-TELLING_APART:]}"
                with naming_output_faults("name the folder of a derived series"):
                    (staging / uid).rename(staging / name)
                names[uid] = name
                taken.add(name)
            derived = replace(derived, folder=staging / names[uid])
        renamed.append(replace(outcome, derived=derived))
    return tuple(renamed)
