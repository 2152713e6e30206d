"""Importing this loads the CUDA runtime library; whoever imports holoscan imports this before.

holoscan is linked with libcudart even where it runs on a CPU, and looks for it where a CUDA toolkit
is installed. A machine without one has it in the wheel `nvidia-cuda-runtime`, where the loader does
not look; a library that is loaded already is not looked for.
"""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path


def find_cuda_runtime() -> Path | None:
    """Return the library of the wheel; None where the wheel is not installed."""
    namespace = importlib.util.find_spec("nvidia")
    for folder in (namespace and namespace.submodule_search_locations) or []:
        for library in sorted(Path(folder).glob("*/lib/libcudart.so.*")):
            return library
    return None


if library := find_cuda_runtime():
    ctypes.CDLL(str(library))
