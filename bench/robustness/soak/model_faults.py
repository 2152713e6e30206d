"""The network is broken, gives no numbers, does not come to an end, needs too much memory.

Each time there is a reason code, nothing is sent, and the next job runs.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from bench.pacs.processes import wait_until
from bench.pacs.scanner import make_series
from bench.robustness.soak.workplace import (
    HASTY,
    Figures,
    Workplace,
    has_ended,
    last_job,
    promise,
    sender,
)
from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.models.bundle import METADATA, WEIGHTS
from stillscan.models.networks.student import StudentNetwork

SLICES = 4
SOUND = "mr"
MATRIX = {"greedy": 1024}  # the most that the network takes in one piece
GREEDY = (1024, 256)  # widths of its network
# name of the bundle: state and reason of its job
FAULTS = {
    "no-numbers": ("refused", "quality-gate"),
    "damaged": ("dead", "model-fault"),
    "slow": ("dead", "time-out"),
    "greedy": ("dead", "out-of-memory"),
    "missing": ("dead", "bad-settings"),
}


def model_faults(place: Workplace) -> Figures:
    """Jobs with broken bundles, each between two with a sound one."""
    models = place.folder / "models"
    make_bundles(models)
    out = place.folder / "out"
    rules = [
        {"name": name, "match": {"SeriesDescription": name}, "bundle": name}
        | {"destinations": ["out"]}
        for name in (*FAULTS, SOUND)
    ]
    gateway = place.gateway(
        models=str(models),
        completeness=HASTY,
        worker={"timeout-s": 25.0, "attempts": 2, "backoff-s": 0.2, "memory-mb": 1600},
        destinations=[{"name": "out", "kind": "folder", "folder": str(out)}],
        rules=rules,
    )
    figures: Figures = {}
    with gateway:
        for number, (name, (state, reason)) in enumerate(FAULTS.items()):
            if name == "slow":
                make_wait(models / name)
            elif name == "missing":  # the gateway does not start without it
                shutil.rmtree(models / name)
            matrix = MATRIX.get(name, 128)
            broken, sound = (
                make_series(
                    place.folder / "in" / str(key),
                    key,
                    SLICES,
                    size,
                    SeriesDescription=what,
                )
                for key, size, what in (
                    (2 * number, matrix, name),
                    (2 * number + 1, 128, SOUND),
                )
            )
            sender().send(broken.files)
            sender().send(sound.files)
            for each in (broken, sound):
                wait_until(
                    lambda uid=each.uid: has_ended(last_job(gateway, uid)),  # type: ignore[misc]
                    240,
                    f"{name}: both jobs end",
                )
            job, next_job = last_job(gateway, broken.uid), last_job(gateway, sound.uid)
            assert job is not None and next_job is not None  # noqa: PT018
            outcome = f"{job.state}: {job.reason} after {job.attempts} attempts"
            promise((job.state, job.reason) == (state, reason), f"{name}: {reason}, not {outcome}")
            promise(next_job.state == "derived", f"{name}: the next job runs: {next_job.reason}")
            figures[name] = f"{outcome}; the next job is derived"
        wait_until(gateway.is_idle, 60, "all is delivered")
        restarts = gateway.overview.counts().totals.get("worker_restarts", 0)
    sent = len(list(out.iterdir()))
    promise(sent == len(FAULTS), f"only sound series are sent, not {sent}")
    return {**figures, "worker restarts": restarts, "sent": sent}


def make_bundles(models: Path) -> None:
    """The shipped bundle, and others that are broken in one way each."""
    shutil.copytree(DEFAULT_BUNDLES / SOUND, models / SOUND)
    for name in FAULTS:
        shutil.copytree(DEFAULT_BUNDLES / SOUND, models / name)
    file = models / "no-numbers" / WEIGHTS
    weights = {name: torch.full_like(each, torch.nan) for name, each in load_file(file).items()}
    save_file(weights, file)
    file = models / "damaged" / WEIGHTS
    file.write_bytes(file.read_bytes()[:-1000])
    network = StudentNetwork(GREEDY, 1)
    half = {key: each.half().contiguous() for key, each in network.state_dict().items()}
    save_file(half, models / "greedy" / WEIGHTS)
    metadata = json.loads((models / "greedy" / METADATA).read_text())
    metadata["stillscan"]["network"] = {"widths": list(GREEDY), "middle_blocks": 1}
    (models / "greedy" / METADATA).write_text(json.dumps(metadata))


def make_wait(bundle: Path) -> None:
    """Let every reader of the weights wait for ever, as on storage that does not answer.

    A large network would be slow on some processors only. The planner reads all weights when it
    starts, so call this when it has made a job.
    """
    (bundle / WEIGHTS).unlink()
    os.mkfifo(bundle / WEIGHTS)
