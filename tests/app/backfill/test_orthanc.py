"""A real archive as source and destination, over DICOMweb."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import need
from tests.deploy.gateway.test_demo_pacs import has_namespaces

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
Tool = Callable[[str], str]


@pytest.mark.tools
def test_an_archive_is_filled_from_itself_and_nothing_is_twice(tmp_path: Path, tool: Tool):
    for program in ("Orthanc", "dcmsend", "ip"):
        tool(program)
    need(has_namespaces(tool("unshare")), "this machine allows no network namespace")
    session = [sys.executable, "-m", "tests.app.backfill.orthanc_backfill", str(tmp_path)]
    done = subprocess.run(
        session, check=False, cwd=ROOT, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
