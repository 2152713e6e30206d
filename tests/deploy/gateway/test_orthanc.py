"""A real Orthanc beside the gateway: its script, and STOW-RS as it speaks it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import need
from tests.deploy.gateway.test_demo_pacs import has_namespaces

ROOT = Path(__file__).resolve().parents[3]
Tool = Callable[[str], str]

pytestmark = [pytest.mark.tools, pytest.mark.slow]


def run_session(name: str, folder: Path, tool: Tool) -> None:
    """Run a session in a network namespace of its own."""
    for program in ("Orthanc", "dcmsend", "ip"):
        tool(program)
    need(has_namespaces(tool("unshare")), "this machine allows no network namespace")
    session = [sys.executable, "-m", f"tests.deploy.gateway.{name}", str(folder)]
    done = subprocess.run(session, check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_gateway_could_not_take_is_sent_again(tmp_path: Path, tool: Tool):
    run_session("orthanc_script", tmp_path, tool)


def test_orthanc_stores_over_stow_rs(tmp_path: Path, tool: Tool):
    run_session("orthanc_stow", tmp_path, tool)
