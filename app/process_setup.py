"""Set-up of a process: one heap for all threads, torch without its compiler."""

from __future__ import annotations

import ctypes
import sys
import threading
from importlib import import_module
from types import ModuleType

# of <malloc.h>
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
LARGEST_FROM_HEAP = 2**25  # bytes: glibc's maximum
KEPT = 2**28  # bytes at the end of the heap that the process keeps

META_KERNELS = "torch._meta_registrations"
_IMPORTING = threading.Lock()


def share_one_heap() -> None:
    """Let all threads of this process use one heap; call it before threads are started.

    glibc gives each thread a heap of its own. Blocks that one stage allocates and another frees
    leave holes in all of them, and the memory grows with the series: 150 x 512x512 needed 855 MB,
    with one heap 715 MB, in the same processor time.

    glibc also returns free memory to the kernel and requests it again, zeroed page by page, for
    every array of the network. If it is kept instead, the student takes a tenth less time, with the
    same peak.
    """
    if sys.platform == "win32":
        return  # it has no library of the process itself
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries do not have it
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_THRESHOLD, LARGEST_FROM_HEAP)
        mallopt(M_TRIM_THRESHOLD, KEPT)


def import_torch() -> None:
    """Import torch without its meta kernels, in a third of the time; other kernels are kept.

    For `torch.compile`, `torch.export` and fake tensors, torch registers Python functions that
    compute the shape of every operation ("meta" kernels). Running a network does not need them, and
    registering them takes longer than denoising a short series. The module can still be imported
    later by its name. Nothing happens if torch is already imported.
    """
    with _IMPORTING:  # a second thread waits until all of torch is there
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
