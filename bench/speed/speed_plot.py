"""Bar plot of core-seconds per slice, stages beside peers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.speed.stages import StageTime

SURFACE, INK, BAR, PEER = "#ffffff", "#222222", "#2b6cb0", "#a0aec0"


def plot_stages(stages: Sequence[StageTime], path: Path) -> None:
    """Draw one bar per row measured on one thread, on a logarithmic scale."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [one for one in stages if one.threads == 1][::-1]
    ours = ("student", "teacher", "gate", "read", "write")
    figure, axes = plt.subplots(figsize=(8, 0.32 * len(rows) + 1), facecolor=SURFACE)
    axes.barh(
        [one.what for one in rows],
        [one.core_seconds for one in rows],
        color=[BAR if one.what.startswith(ours) else PEER for one in rows],
    )
    for row, one in enumerate(rows):
        axes.text(one.core_seconds * 1.08, row, f"{one.core_seconds:.3g}", va="center", color=INK)
    axes.set_xscale("log")
    axes.set_xlabel("core-seconds of one 512x512 slice")
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
