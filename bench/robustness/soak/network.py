"""Hostile network peers against a receiver that runs as under the supervisor."""

from __future__ import annotations

import os

from bench.robustness.network_abuse import (
    ECHO_LIMIT_S,
    MEMORY_LIMIT_MB,
    abuse,
    free_port,
    running_receiver,
)
from bench.robustness.soak.workplace import Figures, Workplace, promise
from stillscan.deploy.gateway.settings import ReceiverSection

MUTANTS, QUICK_MUTANTS = 10_000, 500
SLOW = 200


def network(place: Workplace) -> Figures:
    """Run all kinds of abuse while a legitimate peer sends C-ECHO."""
    settings = ReceiverSection(port=free_port(), drain_s=1.0)
    os.environ.setdefault("STILLSCAN_LOG_LEVEL", "error")  # it would log much
    mutants = MUTANTS if place.full else QUICK_MUTANTS
    figures: Figures = {"mutated PDUs sent": mutants, "slow connections held": SLOW}
    with running_receiver(place.folder / "data", settings) as process_id:
        for each in abuse(settings.port, process_id, mutants, SLOW):
            figures[f"{each.name}: slowest of {each.echoes} C-ECHO (s)"] = round(each.slowest_s, 2)
            figures[f"{each.name}: peak memory (MB)"] = round(each.peak_mb)
            promise(each.slowest_s < ECHO_LIMIT_S, f"served within {ECHO_LIMIT_S:g} s")
            promise(each.peak_mb < MEMORY_LIMIT_MB, f"memory below {MEMORY_LIMIT_MB:g} MB")
    return figures
