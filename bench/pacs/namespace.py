"""Processes in namespaces with their own network, mounts and children, unreachable from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

INSIDE = "STILLSCAN_OWN_NETWORK"


def enter(arguments: Sequence[str]) -> None:
    """Run `python -m <arguments>` in new namespaces and exit with its status; inside them, return.

    Call it first; inside the namespaces it activates the loopback interface and returns.
    """
    if os.environ.get(INSIDE):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", *as_root, "--net", "--mount", sys.executable, "-m", *arguments]
    sys.exit(subprocess.run(command, env={**os.environ, INSIDE: "1"}, check=False).returncode)


def small_disk(folder: Path, megabytes: int) -> None:
    """Mount a file system of this size; it is removed with the namespace."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={megabytes}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
