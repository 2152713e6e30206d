"""One network in one safetensors file that also names its kind."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from stillscan.models.networks.blind_spot import BlindSpotNetwork
from stillscan.models.networks.conditional_diffusion import DiffusionNetwork, Profile
from stillscan.models.networks.quantization import quantized, roundings
from stillscan.models.networks.student import StudentNetwork


class WeightsError(ValueError):
    """A file of weights cannot be read, or does not fit the kind of network that it names."""


def save_network(network: nn.Module, path: Path) -> None:
    """Write weights (float16 in the file) and the arguments of the network.

    Raises:
        TypeError: for an unknown kind of network.
    """
    kind, arguments = _described(network)
    weights = {name: t.detach().half().contiguous() for name, t in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"kind": kind, "arguments": json.dumps(arguments)}
    path.write_bytes(save(weights, metadata))  # `save_file` would make it unreadable for others


def load_network(path: Path) -> BlindSpotNetwork | DiffusionNetwork | StudentNetwork:
    """Load the network of a file, float32, on the CPU.

    Raises:
        WeightsError: if the file is missing, damaged, or of an unknown kind.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        network = _made(metadata["kind"], json.loads(metadata["arguments"]))
        network.load_state_dict(weights)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path.name} cannot be loaded: {error}") from error
    return network


def _described(network: nn.Module) -> tuple[str, dict[str, Any]]:
    if isinstance(network, BlindSpotNetwork):
        arguments = {"radius": network.radius, "width": network.width, "blocks": network.blocks}
        return "blind_spot", arguments
    if isinstance(network, DiffusionNetwork):
        return "diffusion", _unet(network) | {"profile": asdict(network.profile)}
    if isinstance(network, StudentNetwork):
        return "student", _unet(network) | ({"int8": True} if roundings(network) else {})
    raise TypeError(f"unknown kind of network: {type(network).__name__}")


def _unet(network: DiffusionNetwork | StudentNetwork) -> dict[str, Any]:
    return {"widths": network.widths, "middle_blocks": network.middle_blocks}


def _made(
    kind: str, arguments: dict[str, Any]
) -> BlindSpotNetwork | DiffusionNetwork | StudentNetwork:
    if kind == "blind_spot":
        return BlindSpotNetwork(**arguments)
    widths = tuple(arguments.pop("widths"))
    if kind == "student":
        rounds = arguments.pop("int8", False)
        student = StudentNetwork(widths, **arguments)
        return quantized(student) if rounds else student
    if kind == "diffusion":
        profile = Profile(**arguments.pop("profile"))
        return DiffusionNetwork(profile, widths, **arguments)
    raise ValueError(f"unknown kind of network: {kind}")
