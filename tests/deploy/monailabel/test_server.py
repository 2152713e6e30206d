"""A real `monailabel start_server`, asked through its REST interface, without any network."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.conftest import ROOT, need
from tests.deploy.gateway.test_demo_pacs import has_namespaces

Tool = Callable[[str], str]


def run_session(session: str, folder: Path, tool: Tool) -> None:
    """Run a session in a network namespace of its own."""
    tool("ip")
    need(has_namespaces(tool("unshare")), "this machine allows no network namespace")
    command = [sys.executable, "-W", "ignore", "-m", f"tests.deploy.monailabel.{session}"]
    done = subprocess.run(
        [*command, str(folder)], check=False, cwd=ROOT, capture_output=True, text=True
    )
    log = folder / "server" / "server.log"
    said = log.read_text(errors="replace")[-6000:] if log.exists() else ""
    assert done.returncode == 0, done.stdout + done.stderr + said


def test_a_server_on_files_denoises_and_trains(tmp_path: Path, tool: Tool):
    run_session("server_on_files", tmp_path, tool)


def test_a_server_on_a_pacs_stores_the_derived_series(tmp_path: Path, tool: Tool):
    tool("Orthanc")
    run_session("server_on_dicomweb", tmp_path, tool)
