"""Every code that the gateway gives as a reason is explained in docs/reasons.md."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
GATEWAY = ROOT / "deploy" / "gateway"
# name of the call: which of its arguments is a code
CALLS = {"DeliveryFailedError": 0, "_ended": 1, "fail": 2, "_failed": 2}


def codes() -> set[str]:
    found = set()
    for path in GATEWAY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name == "InformationalResponse":  # its reason is a phrase of HTTP
                    continue
                position = CALLS.get(name)
                if position is not None and len(node.args) > position:
                    value = node.args[position]
                    if isinstance(value, ast.Constant) and isinstance(value.value, str):
                        found.add(value.value)
                found |= {
                    each.value.value
                    for each in node.keywords
                    if each.arg == "reason" and isinstance(each.value, ast.Constant)
                }
    return found


def test_every_code_is_explained():
    explained = (ROOT / "docs/reasons.md").read_text(encoding="utf-8")
    assert {"series-incomplete", "time-out", "no-answer", "late-after-retention"} <= codes()
    assert len(codes()) > 14
    assert not {code for code in codes() if f"| `{code}` |" not in explained}
