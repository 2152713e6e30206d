"""Processes that train one network together, started by `torchrun`; without it, one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

LONGEST_WAIT = timedelta(hours=6)  # of other ranks for the choice of the teacher


@dataclass(frozen=True)
class Ranks:
    """The place of this process among the processes of a training.

    Attributes:
        rank: number of this process; rank 0 writes files and messages.
        count: number of processes.
        device: torch device of this process.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def speaks(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes have reached this point."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def process_group(device: str) -> Iterator[Ranks]:
    """Join the group that `torchrun` describes in the environment.

    Args:
        device: "cpu" or "cuda"; each process uses the GPU of its local rank.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Ranks(0, 1, torch.device(device))
        return
    here = torch.device(device)
    if device == "cuda":
        here = torch.device(device, int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(here)
    backend = "nccl" if device == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=LONGEST_WAIT)
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size(), here)
    finally:
        distributed.destroy_process_group()
