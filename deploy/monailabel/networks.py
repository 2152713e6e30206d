"""Chooses the bundle for a request; its network is loaded once and kept in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, cast, get_args

from stillscan.app.bundles.choice import bundle_for, load_methods
from stillscan.app.library.images import ModalityUnknownError
from stillscan.app.settings import Device, Mode, Settings, Strength
from stillscan.deploy.monailabel.errors import RequestError
from stillscan.models.bundle import BundleInfo
from stillscan.operators.graph.messages import Method

MODES = tuple(mode for mode in get_args(Mode) if mode != "identity")
STRENGTHS = ("high", "medium", "low")  # the first is the default


@dataclass(frozen=True)
class Wish:
    """The parameters of a request.

    Attributes:
        strength: share of the noise that is removed.
        mode: of the denoiser.
        device: "cpu" or "cuda".
    """

    strength: Strength = "high"
    mode: Mode = "student"
    device: Device = "cpu"

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> Wish:
        """Read the parameters of a request.

        Raises:
            RequestError: if a parameter has an invalid value.
        """
        return cls(
            cast(Strength, choice(request, "strength", STRENGTHS)),
            cast(Mode, choice(request, "mode", MODES)),
            "cuda" if str(request.get("device", "cpu")).startswith("cuda") else "cpu",
        )


def choice(request: Mapping[str, Any], name: str, known: tuple[str, ...]) -> str:
    """The value of a parameter; clients send the list of all values if the user has not chosen.

    Raises:
        RequestError: if it is not one of `known`.
    """
    value = request.get(name) or known[0]
    chosen = value[0] if isinstance(value, list) else value
    if chosen not in known:
        raise RequestError(f"{name} is '{chosen}', expected one of {', '.join(known)}")
    return str(chosen)


class Networks:
    """The networks of all bundles, each loaded when it is first used."""

    def __init__(self, settings: Settings) -> None:
        """`settings` contain the limits of the gate."""
        self._settings = settings
        self._loaded: dict[tuple[Path, str, Wish], Method] = {}
        self._lock = Lock()

    def method(self, bundle: BundleInfo, modality: str, wish: Wish) -> Method:
        """The method for a series of this modality.

        Raises:
            ModelError: if the bundle cannot be loaded or lacks the mode.
            InputError: if the bundle is not for the modality.
        """
        bundle_for(modality, [bundle])
        key = bundle.folder, modality, wish
        with self._lock:  # two requests at once load it once
            if key not in self._loaded:
                section = replace(
                    self._settings.denoise,
                    mode=wish.mode,
                    strength=wish.strength,
                    device=wish.device,
                )
                settings = replace(self._settings, denoise=section)
                self._loaded[key] = load_methods({modality: bundle}, settings)[modality]
            return self._loaded[key]


def modality_of(request: Mapping[str, Any], bundle: BundleInfo | None) -> str:
    """The modality of an image whose file does not state it: that of the request or the bundle.

    Raises:
        ModalityUnknownError: if neither states it.
    """
    said = request.get("modality")
    if isinstance(said, str) and said:
        return said.upper()
    if bundle is not None:
        return bundle.modalities[0]
    raise ModalityUnknownError(
        "the file does not state its modality: add the parameter modality (MR, CT, CR or "
        "DX), or choose the model of a modality, such as stillscan_mr"
    )


def wants_store(request: Mapping[str, Any]) -> bool:
    """Whether the derived series is to be stored in the server of the images."""
    return request.get("store") in (True, "true", "True")
