"""How a process is set up before it works: one heap for all threads, torch without its compiler."""

from __future__ import annotations

import ctypes
import sys
from importlib import import_module
from types import ModuleType

# of <malloc.h>
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
LARGEST_FROM_HEAP = 2**25  # bytes: the most that glibc allows
KEPT = 2**28  # bytes at the end of the heap that stay with the process

META_KERNELS = "torch._meta_registrations"


def share_one_heap() -> None:
    """Let all threads of this process allocate from one heap; call it before there are threads.

    glibc gives each thread a heap of its own. Blocks that are made in one stage and freed in
    another leave holes in all of them, and the process grows with the series: 150 x 512x512 peaked
    at 855 MB, with one heap at 715 MB, for the same processor time.

    It also gives the kernel back what is free and asks for it anew, zeroed page by page, for every
    array of the network. Kept instead, the student takes a tenth less time, and the peak is the
    same.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # another C library has no such thing
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_THRESHOLD, LARGEST_FROM_HEAP)
        mallopt(M_TRIM_THRESHOLD, KEPT)


def import_torch() -> None:
    """Import torch without its meta kernels, in a third of the time; the other kernels stay.

    For `torch.compile`, `torch.export` and fake tensors, torch registers in Python what shape every
    operation would give ("meta" kernels). Running a network needs none of it, and it takes longer
    than a short series takes to denoise. The module can still be imported later by its name.
    Nothing happens where torch is imported already.
    """
    if "torch" in sys.modules:
        return
    sys.modules[META_KERNELS] = ModuleType(META_KERNELS)
    try:
        torch = import_module("torch")
    finally:
        del sys.modules[META_KERNELS]
    _, _, name = META_KERNELS.rpartition(".")
    if hasattr(torch, name):
        delattr(torch, name)
