"""Chooses the bundle for a request; its network is loaded once and kept in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

from stillscan.app.bundles.choice import bundle_for
from stillscan.app.bundles.warm_networks import WarmNetworks
from stillscan.app.library.images import ModalityUnknownError
from stillscan.app.settings import (
    STRENGTH_EXPECTED,
    Device,
    Mode,
    Settings,
    Strength,
    with_choices,
)
from stillscan.app.settings import STRENGTHS as SHARES
from stillscan.deploy.monailabel.errors import RequestError
from stillscan.models.bundle import BundleInfo
from stillscan.operators.graph.messages import Method

MODES = tuple(mode for mode in get_args(Mode) if mode != "identity")
STRENGTHS = ("high", "medium", "low")  # the first is the default


@dataclass(frozen=True)
class Wish:
    """The parameters of a request.

    Attributes:
        strength: share of the noise that is removed, 0 to 1.
        mode: of the denoiser.
        device: "cpu" or "cuda".
    """

    strength: float = 1.0
    mode: Mode = "student"
    device: Device = "cpu"

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> Wish:
        """Read the parameters of a request.

        Raises:
            RequestError: if a parameter has an invalid value.
        """
        return cls(
            strength_of(request),
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


def strength_of(request: Mapping[str, Any]) -> float:
    """The share of the noise to remove: a word of STRENGTHS, or a number from 0 to 1.

    Raises:
        RequestError: if it is neither.
    """
    try:
        share = float(request["strength"])
    except (KeyError, TypeError, ValueError):  # nothing, a list, a word
        return SHARES[cast(Strength, choice(request, "strength", STRENGTHS))]
    if not 0 <= share <= 1:
        raise RequestError(f"strength is {share:g}; {STRENGTH_EXPECTED}")
    return share


class Networks:
    """The networks of all bundles, each loaded when it is first used."""

    def __init__(self, settings: Settings) -> None:
        """`settings` contain the limits of the gate."""
        self._settings = settings
        self._loaded = WarmNetworks()

    def method(self, bundle: BundleInfo, modality: str, wish: Wish) -> Method:
        """The method for a series of this modality.

        Raises:
            ModelError: if the bundle cannot be loaded or lacks the mode.
            InputError: if the bundle is not for the modality.
        """
        bundle_for(modality, [bundle])
        settings = with_choices(self._settings, wish.mode, wish.strength, wish.device)
        return self._loaded({modality: bundle}, settings)[modality]


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


def wants(request: Mapping[str, Any], what: str) -> bool:
    """Whether a request asks for `store` (the derived series) or `maps` (noise and error)."""
    return request.get(what) in (True, "true", "True")
