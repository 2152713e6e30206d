"""Loads the CUDA runtime library on import; import it before holoscan.

holoscan is linked with libcudart even when it runs on a CPU, and looks for it in a CUDA toolkit. On
a machine without one the library is in the wheel `nvidia-cuda-runtime`, where the loader does not
look; a library that is already loaded is found.
"""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path


def find_cuda_runtime() -> Path | None:
    """Return the library of the wheel; None if the wheel is not installed."""
    namespace = importlib.util.find_spec("nvidia")
    for folder in (namespace and namespace.submodule_search_locations) or []:
        for library in sorted(Path(folder).glob("*/lib/libcudart.so.*")):
            return library
    return None


if library := find_cuda_runtime():
    ctypes.CDLL(str(library))
