"""Import torch without what only its compiler needs: two thirds of the time, the same kernels.

torch registers, in Python, what shape every operation would give ("meta" kernels), for
`torch.compile`, `torch.export` and fake tensors. Running a network needs none of it, and it takes
longer than a short series takes to denoise. Who wants it later imports the module by its name.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

META_KERNELS = "torch._meta_registrations"


def import_torch() -> None:
    """Import torch without its meta kernels; nothing happens where it is imported already."""
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
