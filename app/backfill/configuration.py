"""The configuration that all workers share, and its digest."""

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
        models: folder with bundles, or one bundle; None for the shipped ones, wherever they are
            installed.
        bundle: name of the only bundle to use.
    """

    settings: Settings
    models: Path | None = None
    bundle: str | None = None

    @property
    def models_folder(self) -> Path:
        """Folder of the bundles on this machine."""
        return self.models or DEFAULT_BUNDLES

    def digest(self) -> str:
        """Return a digest of all that can change a derived series: settings, version, weights.

        Raises:
            ModelError: if there are no bundles, or one cannot be read.
            SettingsError: if the named bundle does not exist.
        """
        parts = asdict(self.settings) | {"version": __version__}
        parts.pop("application")
        parts.pop("resources")
        parts["denoise"]["strength"] = self.settings.denoise.share
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
        if self.settings.denoise.mode != "identity":
            for info in available_bundles(self.models_folder, self.bundle):
                digest.update(info.name.encode())
                for file in sorted(info.folder.glob("models/*.safetensors")):
                    with file.open("rb") as weights:
                        digest.update(file.name.encode())
                        digest.update(hashlib.file_digest(weights, "sha256").digest())
        return digest.hexdigest()[:32]

    def arithmetic(self, networks: WarmNetworks) -> str:
        """Load the networks and return backend, precision and device on which they run here.

        Raises:
            ModelError: if one cannot be loaded, or the device or the engine is missing.
        """
        if self.settings.denoise.mode == "identity":
            return "none"
        found = set()
        for info in available_bundles(self.models_folder, self.bundle):
            for method in networks({info.modalities[0]: info}, self.settings).values():
                made = method.provenance
                found.add(f"{made.engine} {made.precision} on {made.device}")
        return ", ".join(sorted(found))
