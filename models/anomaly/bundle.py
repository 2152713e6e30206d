"""Anomaly bundles: `configs/metadata.json` with `stillscan.task: anomaly`, weights, calibration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn, tensor

from stillscan.models.anomaly.autoencoder import LatentAutoencoder
from stillscan.models.anomaly.baselines import CoarseNoiseDenoiser
from stillscan.models.anomaly.calibration import HealthyScores, HealthyThresholds
from stillscan.models.anomaly.guided import GuidedAnomalyModel
from stillscan.models.anomaly.latent import LatentAnomalyModel
from stillscan.models.anomaly.prior import LatentDiffusion, NoisyClassifier
from stillscan.models.bundle import METADATA, BundleError, OtherTaskError

TASK = "anomaly"
HEALTHY = Path("models/healthy.safetensors")
KINDS: Mapping[str, type[nn.Module]] = {
    "autoencoder": LatentAutoencoder,
    "prior": LatentDiffusion,
    "denoiser": CoarseNoiseDenoiser,
    "two_class_prior": LatentDiffusion,
    "classifier": NoisyClassifier,
}


@dataclass(frozen=True)
class AnomalyBundle:
    """A loaded bundle; `sha256` is the digest of all weights and of the calibration.

    Attributes:
        guided: None if the bundle was trained without labels.
        denoiser: the baseline that the bundle was compared with.
        settings: the section `stillscan` of the metadata.
    """

    name: str
    version: str
    sha256: str
    model: LatentAnomalyModel
    guided: GuidedAnomalyModel | None
    denoiser: CoarseNoiseDenoiser
    settings: Mapping[str, Any]


def save_anomaly_bundle(
    networks: Mapping[str, nn.Module],
    model: LatentAnomalyModel,
    folder: Path,
    metadata: Mapping[str, Any],
) -> None:
    """Write the networks (float16 in the file), the calibration of `model`, and the metadata."""
    assert model.thresholds is not None
    assert model.scores is not None
    (folder / METADATA).parent.mkdir(parents=True, exist_ok=True)
    (folder / HEALTHY).parent.mkdir(parents=True, exist_ok=True)
    for name, network in networks.items():
        weights = {key: t.detach().half().contiguous() for key, t in network.state_dict().items()}
        described = {"arguments": json.dumps(network.arguments)}
        (folder / f"models/{name}.safetensors").write_bytes(save(weights, described))
    scores = model.scores
    calibration = {
        "thresholds": model.thresholds.values.contiguous(),
        "quantiles": scores.quantiles.contiguous(),
        "likeness": tensor([scores.log_median, scores.log_deviation]),
    }
    (folder / HEALTHY).write_bytes(save(calibration))
    text = json.dumps(metadata, indent=2, ensure_ascii=False) + "\n"
    (folder / METADATA).write_text(text, encoding="utf-8")


def load_anomaly_bundle(folder: Path, device: str = "cpu") -> AnomalyBundle:
    """Load a bundle.

    Raises:
        BundleError: if it is for another task, or a file is missing or damaged.
    """
    try:
        metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        ours = metadata["stillscan"]
        if ours.get("task") != TASK:
            raise OtherTaskError(f"bundle {folder.name} is for denoising, not for anomaly maps")
        networks = {
            name: _network(folder / f"models/{name}.safetensors", kind).to(device)
            for name, kind in KINDS.items()
            if (folder / f"models/{name}.safetensors").is_file()
        }
        healthy: dict[str, Tensor] = load_file(folder / HEALTHY, device)
        model = LatentAnomalyModel(
            networks["autoencoder"],  # type: ignore[arg-type]
            networks["prior"],  # type: ignore[arg-type]
            ours["row"],
            ours["reference"],
            HealthyThresholds(healthy["thresholds"], ours["nominal"]),
            HealthyScores(healthy["quantiles"], *map(float, healthy["likeness"])),
        )
        guided = None
        if "classifier" in networks:
            guided = GuidedAnomalyModel(
                networks["autoencoder"],  # type: ignore[arg-type]
                networks["two_class_prior"],  # type: ignore[arg-type]
                networks["classifier"],  # type: ignore[arg-type]
                ours["scale"],
            )
        files = sorted((folder / "models").glob("*.safetensors"))
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
        return AnomalyBundle(
            folder.name,
            metadata["version"],
            digest,
            model,
            guided,
            networks["denoiser"],  # type: ignore[arg-type]
            ours,
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"bundle {folder.name} cannot be loaded: {error!r}") from error


def as_stored(network: nn.Module) -> nn.Module:
    """Round the weights as the file does, so that the calibration fits what is loaded."""
    return network.half().float().eval().requires_grad_(False)


def _network(path: Path, kind: type[nn.Module]) -> nn.Module:
    with safe_open(path, "pt") as file:
        arguments = json.loads(file.metadata()["arguments"])
        weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    network = kind(**{k: tuple(v) if k == "widths" else v for k, v in arguments.items()})
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)
