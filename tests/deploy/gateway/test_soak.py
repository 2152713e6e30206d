"""The gateway's promises in their quick form: real processes, a real PACS, real faults.

Each scenario runs inside network and mount namespaces of its own; `make soak` runs the full form.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.robustness.soak.__main__ import SCENARIOS

ROOT = Path(__file__).resolve().parents[3]
LONGEST_S = 600

pytestmark = [pytest.mark.tools, pytest.mark.slow]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.xdist_group(f"soak {name}")) for name in SCENARIOS],
)
def test_the_gateway_keeps_its_promises(tmp_path, tool, name):
    for program in ("unshare", "ip", "Orthanc", "dcmsend"):
        tool(program)
    out = tmp_path / "soak.json"
    command = [sys.executable, "-m", "bench.robustness.soak", "--quick", "--only", name]
    command += ["--work", str(tmp_path / "work"), "--out", str(out)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "broken" not in json.loads(out.read_text())["scenarios"][name]
