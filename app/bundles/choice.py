"""Choice of the network for each modality, with its description for derived series."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import stillscan.models
from stillscan import __version__
from stillscan.app.bundles.release import ReleaseRefusedError
from stillscan.app.settings import Settings
from stillscan.models.bundle import BundleError, BundleInfo, OtherTaskError, find_bundles
from stillscan.operators.errors import InputError, ModelError, SettingsError
from stillscan.operators.writing.provenance import Provenance

if TYPE_CHECKING:
    from stillscan.models.denoisers.denoiser import Denoiser
    from stillscan.operators.graph.messages import Method

log = logging.getLogger("stillscan")

DEFAULT_BUNDLES = Path(stillscan.models.__path__[0]) / "bundles"

PRELIMINARY = "bundle {} is preliminary: it was trained on too few real images"
REFUSED = f"bundle {{}} was refused by its own release check ({ReleaseRefusedError.reason}): {{}}"


class NoBundleError(InputError):
    """No bundle is trained for the modality of the series."""

    reason = "no-bundle-for-modality"


class BundleOfAnotherTaskError(ModelError):
    """The named bundle is for another task: denoising, or anomaly maps."""

    reason = "bundle-of-another-task"


class DeviceMissingError(ModelError):
    """The device that the settings name is not there."""

    reason = "device-missing"


class EngineMissingError(ModelError):
    """The engine that the settings name is not installed, or lacks the precision."""

    reason = "engine-missing"


def available_bundles(folder: Path, name: str | None) -> list[BundleInfo]:
    """Find the bundles of a folder, or only the one called `name`; weights are not read.

    Raises:
        ModelError: if the folder is missing, holds no bundle, or a bundle is broken.
        SettingsError: if no bundle has this name.
    """
    if not folder.is_dir():
        raise ModelError(f"models {folder} is not a folder")
    try:
        bundles = find_bundles(folder)
    except OtherTaskError as error:
        raise BundleOfAnotherTaskError(str(error)) from error
    except BundleError as error:
        raise ModelError(str(error)) from error
    if not bundles:
        raise ModelError(f"models {folder} hold no bundle (a folder with configs/metadata.json)")
    if name is None:
        return bundles
    chosen = [each for each in bundles if each.name == name]
    if not chosen:
        names = ", ".join(sorted(each.name for each in bundles))
        raise SettingsError(f"no bundle is called '{name}'; available: {names}")
    return chosen


def bundle_for(modality: str, bundles: Iterable[BundleInfo]) -> BundleInfo:
    """Return the first bundle that is trained for a modality.

    Raises:
        NoBundleError: if there is none.
    """
    bundles = list(bundles)
    for bundle in bundles:
        if modality in bundle.modalities:
            return bundle
    known = sorted({each for bundle in bundles for each in bundle.modalities})
    raise NoBundleError(f"Modality is {modality}; the bundles are for {', '.join(known)}")


def is_preliminary(bundle: BundleInfo) -> bool:
    """Return whether a bundle is marked as trained on too little data."""
    return bool(bundle.metadata.get("stillscan", {}).get("preliminary", False))


def is_refused(bundle: BundleInfo) -> bool:
    """Return whether a fine-tuned bundle was refused by its release check.

    Such a bundle is kept outside the folders that are searched; if named, it is used.
    """
    return not _release(bundle).get("released", True)


def warnings_of(bundle: BundleInfo) -> tuple[str, ...]:
    """Return the warnings for every series that a bundle denoises."""
    warnings = []
    if is_refused(bundle):
        reasons = "; ".join(_release(bundle).get("reasons", ()))
        warnings.append(REFUSED.format(bundle.name, reasons))
    if is_preliminary(bundle):
        warnings.append(PRELIMINARY.format(bundle.name))
    return tuple(warnings)


def _release(bundle: BundleInfo) -> dict[str, Any]:
    """Return the release decision; empty for a bundle that was not fine-tuned from another."""
    release: dict[str, Any] = bundle.metadata.get("stillscan", {}).get("release", {})
    return release


def identity_method(settings: Settings) -> Method:
    """Return the control method: pixels are unchanged, all other steps are done."""
    from stillscan.models.denoisers.denoiser import IdentityDenoiser
    from stillscan.operators.graph.messages import Method

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
    """Load the bundle of each modality; a bundle for several modalities only once.

    Raises:
        ModelError: if a bundle cannot be loaded, or the device or the engine is missing.
    """
    from stillscan.models.bundle import load_mode
    from stillscan.models.engines.engine import EngineError
    from stillscan.operators.graph.messages import Method

    mode = settings.denoise.mode
    assert mode != "identity", "the control needs no bundle"

    device = resolve_device(settings.denoise.device)
    strength = settings.denoise.share
    loaded: dict[Path, Method] = {}
    for info in bundles.values():
        if info.folder in loaded:
            continue
        warnings = warnings_of(info)
        if is_refused(info):  # logged even if no series gets a report
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
            settings.denoise.temporal == "auto",
        )
    return {modality: loaded[info.folder] for modality, info in bundles.items()}


def precision_of(denoiser: Denoiser) -> str:
    """Return the precision of the arithmetic: the student's, else bfloat16 if the device has it."""
    from stillscan.models.denoisers.student import StudentDenoiser
    from stillscan.models.networks.precision import computes_bfloat16

    if isinstance(denoiser, StudentDenoiser):
        return denoiser.engine.precision
    device = getattr(denoiser, "device", "cpu")
    return "bfloat16" if computes_bfloat16(device) else "float32"


def engine_of(denoiser: Denoiser) -> str:
    """Return the inference backend; the sampling modes use torch."""
    from stillscan.models.denoisers.student import StudentDenoiser

    return denoiser.engine.name if isinstance(denoiser, StudentDenoiser) else "torch"


def resolve_device(wanted: str) -> str:
    """Turn `auto` into `cuda` if there is a GPU, otherwise into `cpu`.

    Raises:
        DeviceMissingError: if `cuda` is requested and missing.
    """
    import torch

    there = torch.cuda.is_available() if wanted != "cpu" else False
    if wanted == "cuda" and not there:
        raise DeviceMissingError("device 'cuda' is not available: no GPU, or no driver for it")
    return "cuda" if there else "cpu"
