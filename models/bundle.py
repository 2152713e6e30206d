"""Save and load trained weights as MONAI Bundles (`configs/metadata.json`, weights, `docs`)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.student import StudentDenoiser, StudentNetwork

METADATA = Path("configs/metadata.json")
WEIGHTS = Path("models/model.safetensors")


class BundleError(ValueError):
    """A bundle is missing, incomplete, or its weights do not fit its description."""


@dataclass(frozen=True)
class BundleInfo:
    """What `metadata.json` says, without loading weights.

    Attributes:
        name: of the bundle's folder.
        modalities: DICOM Modality values it serves.
        noise_range: sigma on the network's intensity scale that it was trained for.
    """

    name: str
    version: str
    modalities: tuple[str, ...]
    noise_range: tuple[float, float]
    folder: Path
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Bundle:
    """A bundle ready to run; `sha256` is of the weights file."""

    info: BundleInfo
    sha256: str
    denoiser: StudentDenoiser

    @property
    def name(self) -> str:
        """Of the bundle's folder."""
        return self.info.name

    @property
    def version(self) -> str:
        """From the metadata."""
        return self.info.version

    @property
    def modalities(self) -> tuple[str, ...]:
        """DICOM Modality values it serves."""
        return self.info.modalities

    @property
    def noise_range(self) -> tuple[float, float]:
        """Sigma on the network's intensity scale that it was trained for."""
        return self.info.noise_range


def find_bundles(folder: Path) -> list[BundleInfo]:
    """All bundles in a folder, by name; the folder may itself be one bundle.

    Raises:
        BundleError: if the folder does not exist or a bundle's metadata cannot be read.
    """
    if not folder.is_dir():
        raise BundleError(f"the folder of bundles does not exist: {folder}")
    if (folder / METADATA).is_file():
        return [read_info(folder)]
    return [read_info(path.parent.parent) for path in sorted(folder.glob(f"*/{METADATA}"))]


def read_info(folder: Path) -> BundleInfo:
    """What the bundle in this folder says of itself.

    Raises:
        BundleError: if `metadata.json` is missing, is not JSON or lacks a key.
    """
    try:
        metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        return BundleInfo(
            name=folder.name,
            version=str(metadata["version"]),
            modalities=tuple(metadata["stillscan"]["modalities"]),
            noise_range=tuple(metadata["stillscan"]["noise_range"]),
            folder=folder,
            metadata=metadata,
        )
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise BundleError(f"bundle {folder.name}: {METADATA} is not readable: {error!r}") from error


def load_bundle(folder: Path, device: str = "cpu", precision: str = "auto") -> Bundle:
    """Load network and weights, ready to denoise.

    Args:
        folder: of one bundle.
        device: torch device, such as "cpu" or "cuda:0".
        precision: "float32", "bfloat16", or "auto" (bfloat16 where the hardware computes it).

    Raises:
        BundleError: if a file is missing or damaged, or the weights do not fit the network.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    from models.student import StudentDenoiser, StudentNetwork

    info = read_info(folder)
    try:
        data = (folder / WEIGHTS).read_bytes()
        weights = {name: tensor.float() for name, tensor in load(data).items()}
        network = StudentNetwork(**_network_arguments(info.metadata))
        network.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError) as error:
        raise BundleError(f"bundle {info.name}: {WEIGHTS} cannot be loaded: {error}") from error
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(precision)
    if dtype is None:
        dtype = torch.bfloat16 if computes_bfloat16(device) else torch.float32
    denoiser = StudentDenoiser(network, device=device, precision=dtype)
    return Bundle(info, hashlib.sha256(data).hexdigest(), denoiser)


def _network_arguments(metadata: dict[str, Any]) -> dict[str, Any]:
    arguments = metadata["stillscan"]["network"]
    return {"widths": tuple(arguments["widths"]), "middle_blocks": int(arguments["middle_blocks"])}


def computes_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 in hardware (elsewhere it is slower than float32)."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device)[0] >= 8
    return bool(torch.cpu._is_avx512_bf16_supported())


def save_bundle(network: StudentNetwork, folder: Path, metadata: dict[str, Any]) -> None:
    """Write weights (float16 in the file, float32 when loaded) and metadata.

    Args:
        network: the trained network.
        folder: of the bundle; made if needed.
        metadata: without the network's arguments, which are added.
    """
    from safetensors.torch import save_file

    metadata["stillscan"]["network"] = {
        "widths": list(network.widths),
        "middle_blocks": network.middle_blocks,
    }
    (folder / METADATA).parent.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).parent.mkdir(parents=True, exist_ok=True)
    weights = {name: t.detach().half().contiguous() for name, t in network.state_dict().items()}
    save_file(weights, folder / WEIGHTS)
    text = json.dumps(metadata, indent=2, ensure_ascii=False) + "\n"
    (folder / METADATA).write_text(text, encoding="utf-8")
