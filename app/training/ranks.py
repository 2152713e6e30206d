"""The processes that train one network together, as `torchrun` starts them; without it, one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

LONGEST_WAIT = timedelta(hours=6)  # for the rank that chooses the teacher


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this one is.

    Attributes:
        rank: of this process; 0 writes files and speaks.
        count: of processes.
        device: where this one computes.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def speaks(self) -> bool:
        """Whether this is the process that writes files and speaks to the person."""
        return self.rank == 0

    def wait(self) -> None:
        """Go on when all are here."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def process_group(device: str) -> Iterator[Ranks]:
    """Join the group that `torchrun` describes in the environment.

    Args:
        device: "cpu" or "cuda"; each process takes the GPU of its local rank.
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
