"""Cache of loaded networks for processes that run many jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING

from stillscan.app.bundles.choice import load_methods
from stillscan.app.settings import Settings
from stillscan.models.bundle import BundleInfo

if TYPE_CHECKING:  # it imports torch
    from stillscan.operators.graph.messages import Method


class WarmNetworks:
    """Loads the networks of jobs, each network once; safe to use from several threads."""

    def __init__(self) -> None:
        """Start with an empty cache."""
        self._loaded: dict[object, dict[str, Method]] = {}
        self._lock = Lock()

    def __call__(
        self, bundles: Mapping[str, BundleInfo], settings: Settings
    ) -> Mapping[str, Method]:
        """Return the method for each modality, with the strength and the gate of the settings."""
        network = replace(settings.denoise, strength="high")
        key = frozenset((modality, info.folder) for modality, info in bundles.items()), network
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = load_methods(bundles, settings)
            loaded = self._loaded[key]
        strength = settings.denoise.share
        return {
            modality: replace(
                method,
                strength=strength,
                limits=settings.gate,
                provenance=replace(method.provenance, strength=strength),
            )
            for modality, method in loaded.items()
        }
