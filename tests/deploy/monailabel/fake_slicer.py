"""As much of 3D Slicer as `StillscanDenoise.py` asks for; widgets keep what is set on them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np

import stillscan.deploy.monailabel

MODULE = Path(stillscan.deploy.monailabel.__file__).parent / "slicer" / "StillscanDenoise.py"


class Node:
    """A scalar volume node."""

    def __init__(self, name: str, values: np.ndarray, file: Path | None = None) -> None:
        self.name, self.values, self.file = name, values, file
        self.display = MagicMock()

    def GetName(self) -> str:  # noqa: N802
        return self.name

    def GetDisplayNode(self) -> MagicMock:  # noqa: N802
        return self.display


class Scene:
    """The nodes that a user sees, and how the slice views show them."""

    def __init__(self, read: Callable[[str], np.ndarray]) -> None:
        """`read` gives the voxels of a file, [k, j, i] or [k, j, i, component]."""
        self.read, self.nodes, self.layers = read, [], {}

    def save(self, node: Node, path: str) -> None:
        assert node.file is not None
        Path(path).write_bytes(node.file.read_bytes())

    def load(self, path: str, properties: dict[str, Any]) -> Node:
        assert properties == {"show": False}
        self.nodes.append(Node("loaded", self.read(path)))
        return self.nodes[-1]

    def clone(self, scene: Scene, node: Node, name: str) -> Node:
        self.nodes.append(Node(name, node.values))
        return self.nodes[-1]

    def RemoveNode(self, node: Node) -> None:  # noqa: N802
        self.nodes.remove(node)


class Base:
    """Base of the module's classes."""

    def __init__(self, parent: Any = None) -> None:
        self.parent = parent
        self.layout = MagicMock()

    def setup(self) -> None:
        """Make nothing."""


@contextmanager
def slicer_module(scene: Scene) -> Iterator[ModuleType]:
    """`StillscanDenoise` as Slicer imports it, in a Slicer with this scene."""
    slicer = MagicMock()
    slicer.mrmlScene = scene
    slicer.util = SimpleNamespace(
        saveNode=scene.save,
        loadVolume=scene.load,
        arrayFromVolume=lambda node: node.values,
        updateVolumeFromArray=lambda node, values: setattr(node, "values", values),
        setSliceViewerLayers=lambda **layers: scene.layers.update(layers),
    )
    slicer.modules.volumes.logic().CloneVolume = scene.clone
    names = ("", "Logic", "Widget")
    bases = SimpleNamespace(**{f"ScriptedLoadableModule{name}": Base for name in names})
    fakes = {
        "slicer": slicer,
        "slicer.ScriptedLoadableModule": bases,
        "qt": MagicMock(),
        "ctk": MagicMock(),
    }
    before = {name: sys.modules.get(name) for name in fakes}
    sys.modules.update(fakes)  # type: ignore[arg-type]
    try:
        spec = spec_from_file_location("StillscanDenoise", MODULE)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        for name, module_before in before.items():
            if module_before is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module_before
