"""What every worker must agree on: settings and weights, and the digest that stands for them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from stillscan import __version__
from stillscan.app.bundles.choice import DEFAULT_BUNDLES, available_bundles
from stillscan.app.bundles.warm_networks import WarmNetworks
from stillscan.app.settings import Settings


@dataclass(frozen=True)
class Configuration:
    """How series are denoised.

    Attributes:
        models: a folder with bundles, or a bundle; None for the shipped ones, wherever they are
            installed.
        bundle: use only the bundle of this name.
    """

    settings: Settings
    models: Path | None = None
    bundle: str | None = None

    @property
    def models_folder(self) -> Path:
        """Where the bundles are on this machine."""
        return self.models or DEFAULT_BUNDLES

    def digest(self) -> str:
        """Stands for whatever can change a derived series: settings, version, weights.

        Raises:
            ModelError: if there are no bundles, or broken ones.
            SettingsError: if the named bundle is not there.
        """
        parts = asdict(self.settings) | {"version": __version__}
        parts.pop("application")
        parts.pop("resources")
        told = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
        if self.settings.denoise.mode != "identity":
            for info in available_bundles(self.models_folder, self.bundle):
                told.update(info.name.encode())
                for file in sorted(info.folder.glob("models/*.safetensors")):
                    with file.open("rb") as weights:
                        told.update(file.name.encode())
                        told.update(hashlib.file_digest(weights, "sha256").digest())
        return told.hexdigest()[:32]

    def arithmetic(self, networks: WarmNetworks) -> str:
        """What the networks run on here; loads them.

        Raises:
            ModelError: if one cannot be loaded, or the device or the engine is not there.
        """
        if self.settings.denoise.mode == "identity":
            return "none"
        found = set()
        for info in available_bundles(self.models_folder, self.bundle):
            for method in networks({info.modalities[0]: info}, self.settings).values():
                made = method.provenance
                found.add(f"{made.engine} {made.precision} on {made.device}")
        return ", ".join(sorted(found))
