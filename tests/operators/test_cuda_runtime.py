import subprocess
import sys
from pathlib import Path

import pytest

from stillscan.operators.graph.cuda_runtime import find_cuda_runtime

# what the process has loaded, after the graph was imported
LOADED = """
import stillscan.app.pipeline.application
print({line.split()[-1] for line in open('/proc/self/maps') if 'libcudart' in line})
"""


@pytest.mark.slow
def test_the_cuda_runtime_is_the_wheels_whatever_the_machine_has() -> None:
    wheels = find_cuda_runtime()
    assert wheels is not None
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == str({str(wheels)}), done.stderr
