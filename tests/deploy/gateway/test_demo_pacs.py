"""`make demo-pacs`: with a real Orthanc, the derived series appears beside its original, once."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.demo.demo_pacs import TOOLS
from tests.conftest import need

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]


def has_namespaces(unshare: str) -> bool:
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = [unshare, *as_root, "--net", "--mount", "true"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.mark.tools
def test_the_derived_series_appears_in_the_pacs_and_does_not_go_round(
    tmp_path: Path, tool: Callable[[str], str]
):
    for name in TOOLS:
        tool(name)
    need(has_namespaces(tool("unshare")), "this machine allows no network namespace")
    done = subprocess.run(
        [sys.executable, "-m", "bench.demo.demo_pacs", "--out", str(tmp_path / "out")],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = " ".join(done.stdout.split())
    assert "sent 24 instances" in said
    assert "has the derived series" in said
    assert "does not process it (already-denoised)" in said
    (page,) = (tmp_path / "out" / "gateway" / "data" / "reports").glob("*/2.25.*.html")
    assert "original" in page.read_text()
