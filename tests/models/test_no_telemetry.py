"""An engine talks to nobody."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

USE = """
import sys, psutil
from stillscan.models.engines.openvino_engine import OpenVinoEngine
from stillscan.models.networks.student import StudentNetwork
OpenVinoEngine(StudentNetwork((8, 8), 1))
assert "openvino" in sys.modules
left_out = ("openvino_telemetry.", "openvino.tools.ovc.")
print([name for name in sys.modules if name.startswith(left_out)])
print([child.name() for child in psutil.Process().children(recursive=True)])
"""


def test_openvino_neither_loads_its_telemetry_nor_forks():
    shown = subprocess.run(
        [sys.executable, "-c", USE], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    assert shown.split("\n")[:2] == ["[]", "[]"]
