"""A process whose network, mounts and children are its own: nothing in it can be reached."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

INSIDE = "STILLSCAN_OWN_NETWORK"


def enter(arguments: Sequence[str]) -> None:
    """Run `python -m <arguments>` inside new namespaces and leave with its status; return there.

    Call it first thing: inside, it sets loopback up and returns.
    """
    if os.environ.get(INSIDE):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", *as_root, "--net", "--mount", sys.executable, "-m", *arguments]
    sys.exit(subprocess.run(command, env={**os.environ, INSIDE: "1"}, check=False).returncode)


def small_disk(folder: Path, megabytes: int) -> None:
    """Mount a file system of this size; it is gone with the namespace."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={megabytes}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
