"""One process of each part: the lock is let go when its process ends, whoever it has forked."""

import subprocess
import sys
import time

from stillscan.deploy.gateway.processes import process_lock

HOLDER = """
import os, sys, time
from pathlib import Path
from stillscan.deploy.gateway.processes import process_lock
with process_lock(Path(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_lets_the_lock_go_though_a_forked_child_lives(tmp_path):
    lock = tmp_path / "worker.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        began = time.monotonic()
        holder.kill()
        with process_lock(lock):
            waited = time.monotonic() - began
        holder.stdout.close()
    assert waited < 10  # the child sleeps for 20
