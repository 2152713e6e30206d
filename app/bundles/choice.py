"""Which network denoises which modality, and what derived series say of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import stillscan.models
from stillscan import __version__
from stillscan.app.bundles.release import ReleaseRefusedError
from stillscan.app.settings import STRENGTHS, Settings
from stillscan.models.bundle import BundleError, BundleInfo, find_bundles
from stillscan.operators.errors import InputError, ModelError, SettingsError
from stillscan.operators.writing.provenance import Provenance

if TYPE_CHECKING:
    from stillscan.models.denoisers.denoiser import Denoiser
    from stillscan.operators.graph.stages import Method

log = logging.getLogger("stillscan")

DEFAULT_BUNDLES = Path(stillscan.models.__path__[0]) / "bundles"

PRELIMINARY = "bundle {} is preliminary: it has learned from too few real images"
REFUSED = f"bundle {{}} was refused by its own release check ({ReleaseRefusedError.reason}): {{}}"


class NoBundleError(InputError):
    """No bundle is trained for the modality of the series."""

    reason = "no-bundle-for-modality"


class DeviceMissingError(ModelError):
    """The device that the settings name is not there."""

    reason = "device-missing"


class EngineMissingError(ModelError):
    """The engine that the settings name is not installed, or lacks the precision."""

    reason = "engine-missing"


def available_bundles(folder: Path, name: str | None) -> list[BundleInfo]:
    """The bundles of a folder, or only the one called `name`; reads no weights.

    Raises:
        ModelError: if the folder is missing, holds no bundle, or a bundle is broken.
        SettingsError: if there is none called `name`.
    """
    if not folder.is_dir():
        raise ModelError(f"models {folder} is not a folder")
    try:
        bundles = find_bundles(folder)
    except BundleError as error:
        raise ModelError(str(error)) from error
    if not bundles:
        raise ModelError(f"models {folder} hold no bundle (a folder with configs/metadata.json)")
    if name is None:
        return bundles
    chosen = [each for each in bundles if each.name == name]
    if not chosen:
        names = ", ".join(sorted(each.name for each in bundles))
        raise SettingsError(f"no bundle is called '{name}'; there are: {names}")
    return chosen


def bundle_for(modality: str, bundles: Iterable[BundleInfo]) -> BundleInfo:
    """The first bundle that is trained for a modality.

    Raises:
        NoBundleError: if there is none.
    """
    bundles = list(bundles)
    for bundle in bundles:
        if modality in bundle.modalities:
            return bundle
    known = sorted({each for bundle in bundles for each in bundle.modalities})
    raise NoBundleError(f"Modality is {modality}; bundles are there for {', '.join(known)}")


def is_preliminary(bundle: BundleInfo) -> bool:
    """Whether a bundle says of itself that it has seen too little to be relied on."""
    return bool(bundle.metadata.get("stillscan", {}).get("preliminary", False))


def is_refused(bundle: BundleInfo) -> bool:
    """Whether the check that a fine-tuned bundle goes through refused it.

    Such a bundle lies where nobody looks for one; who names it all the same gets what it makes.
    """
    return not _release(bundle).get("released", True)


def warnings_of(bundle: BundleInfo) -> tuple[str, ...]:
    """What a person should know of every series that a bundle denoises."""
    warnings = []
    if is_refused(bundle):
        reasons = "; ".join(_release(bundle).get("reasons", ()))
        warnings.append(REFUSED.format(bundle.name, reasons))
    if is_preliminary(bundle):
        warnings.append(PRELIMINARY.format(bundle.name))
    return tuple(warnings)


def _release(bundle: BundleInfo) -> dict[str, Any]:
    """Empty for a bundle that was not made from another."""
    release: dict[str, Any] = bundle.metadata.get("stillscan", {}).get("release", {})
    return release


def identity_method(settings: Settings) -> Method:
    """The control: pixels stay as they are, everything else happens."""
    from stillscan.models.denoisers.denoiser import IdentityDenoiser
    from stillscan.operators.graph.stages import Method

    provenance = Provenance(
        version=__version__,
        bundle="none",
        model_sha256="none",
        mode="identity",
        strength=1.0,
        engine="none",
        precision="float32",
        device="cpu",
    )
    return Method(IdentityDenoiser(), provenance, limits=settings.gate)


def load_methods(bundles: Mapping[str, BundleInfo], settings: Settings) -> dict[str, Method]:
    """Load the bundle of each modality, one that serves several only once.

    Raises:
        ModelError: if a bundle cannot be loaded, or the device or the engine is not there.
    """
    from stillscan.models.bundle import load_mode
    from stillscan.models.engines.engine import EngineError
    from stillscan.operators.graph.stages import Method

    mode = settings.denoise.mode
    assert mode != "identity", "the control needs no bundle"

    device = resolve_device(settings.denoise.device)
    strength = STRENGTHS[settings.denoise.strength]
    loaded: dict[Path, Method] = {}
    for info in bundles.values():
        if info.folder in loaded:
            continue
        warnings = warnings_of(info)
        if is_refused(info):  # said also where no series gets so far as to have a report
            log.warning("%s", warnings[0])
        try:
            denoiser, digest = load_mode(
                info.folder, mode, device, settings.denoise.precision, settings.denoise.engine
            )
        except BundleError as error:
            raise ModelError(str(error)) from error
        except EngineError as error:
            raise EngineMissingError(str(error)) from error
        provenance = Provenance(
            version=__version__,
            bundle=info.name,
            model_sha256=digest,
            mode=mode,
            strength=strength,
            engine=engine_of(denoiser),
            precision=precision_of(denoiser),
            device=device,
        )
        loaded[info.folder] = Method(
            denoiser,
            provenance,
            strength,
            info.noise_range,
            settings.gate,
            warnings,
        )
    return {modality: loaded[info.folder] for modality, info in bundles.items()}


def precision_of(denoiser: Denoiser) -> str:
    """Of the arithmetic: the student's own; the others take bfloat16 where the device has it."""
    from stillscan.models.denoisers.student import StudentDenoiser
    from stillscan.models.networks.precision import computes_bfloat16

    if isinstance(denoiser, StudentDenoiser):
        return denoiser.engine.precision
    device = getattr(denoiser, "device", "cpu")
    return "bfloat16" if computes_bfloat16(device) else "float32"


def engine_of(denoiser: Denoiser) -> str:
    """The library that multiplies; the teacher has torch alone."""
    from stillscan.models.denoisers.student import StudentDenoiser

    return denoiser.engine.name if isinstance(denoiser, StudentDenoiser) else "torch"


def resolve_device(wanted: str) -> str:
    """`auto` becomes `cuda` where there is one, else `cpu`.

    Raises:
        DeviceMissingError: if `cuda` is wanted and not there.
    """
    import torch

    there = torch.cuda.is_available() if wanted != "cpu" else False
    if wanted == "cuda" and not there:
        raise DeviceMissingError("device 'cuda' is not there: no GPU, or no driver for it")
    return "cuda" if there else "cpu"
