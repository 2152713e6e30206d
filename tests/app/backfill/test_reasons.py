"""Every code that a back-fill or the DICOMweb client gives as a reason is explained."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = (ROOT / "app" / "backfill", ROOT / "app" / "dicomweb")
CALLS = {"DicomWebError": 0, "Fault": 0}  # name of the call: which argument is a code


def codes() -> set[str]:
    found = set()
    for path in [path for folder in FOLDERS for path in folder.glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                position = CALLS.get(getattr(node.func, "id", ""))
                value = node.args[position] if position is not None and node.args else None
            elif isinstance(node, ast.Assign):
                is_reason = getattr(node.targets[0], "id", "") == "reason"
                value = node.value if is_reason else None
            else:
                continue
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found.add(value.value)
    return found


def test_every_code_is_explained():
    explained = (ROOT / "docs/reasons.md").read_text(encoding="utf-8")
    assert {"ray-missing", "time-out", "broken-off", "not-in-archive"} <= codes()
    assert not {code for code in codes() if f"| `{code}` |" not in explained}
