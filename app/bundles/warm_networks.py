"""Cache of loaded networks for processes that run many jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from stillscan.app.bundles.choice import load_methods
from stillscan.app.settings import Settings
from stillscan.models.bundle import BundleInfo

if TYPE_CHECKING:  # it imports torch
    from stillscan.operators.graph.messages import Method


class WarmNetworks:
    """Loads the networks of jobs, each network once."""

    def __init__(self) -> None:
        """Start with an empty cache."""
        self._loaded: dict[object, dict[str, Method]] = {}

    def __call__(
        self, bundles: Mapping[str, BundleInfo], settings: Settings
    ) -> Mapping[str, Method]:
        """Return the method for each modality."""
        key = (
            frozenset((modality, info.folder) for modality, info in bundles.items()),
            settings.denoise,
        )
        if key not in self._loaded:
            self._loaded[key] = load_methods(bundles, settings)
        return self._loaded[key]
