"""Headers that no scanner writes: each kind is a way in which a header can be hostile.

    tree = HeaderTree.of(path)
    content = header_mutant(tree, "impossible spacing", numpy.random.default_rng(7))

The bytes follow PS3.5, so the parser takes them: what has to hold is everything behind it, from the
geometry to the picture. A kind draws its values; the same generator makes the same file.
"""

from __future__ import annotations

from importlib import import_module

import numpy as np

from bench.robustness.headers.tree import KINDS, HeaderTree

for room in ("values", "shapes", "frames"):  # each adds its kinds
    import_module(f"bench.robustness.headers.{room}")

__all__ = ["KINDS", "header_mutant"]


def header_mutant(tree: HeaderTree, kind: str, rng: np.random.Generator) -> bytes:
    """A copy of the file that is hostile in one way."""
    changed = tree.copy()
    KINDS[kind](changed, rng)
    return changed.content()
