"""The rows of the tables: every method with one interface, blind or with oracle noise.

Blind: the method estimates the noise itself (the student as in the application: profile of the
series and quality gate). Oracle: the method gets the noise that was added. Real noise is not
known; there the oracle rows get the profile of the series.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stillscan.app.bundles.choice import available_bundles
from stillscan.app.evaluation.blind_denoising import Denoised, denoise_series
from stillscan.app.evaluation.noise_cases import NoiseCase
from stillscan.app.evaluation.peers import (
    SliceBySlice,
    bm3d_oracle,
    is_installed,
    need,
    nlm,
    total_variation,
    wavelet,
)
from stillscan.models.bundle import (
    FAST_STUDENT,
    FAST_STUDENT_INT8,
    BundleError,
    BundleInfo,
    BundleMode,
    load_mode,
)
from stillscan.models.denoisers.denoiser import Denoiser, IdentityDenoiser
from stillscan.models.engines.engine import EngineError, WantedEngine
from stillscan.models.noise.profile import MAX_LAG, NoiseProfile
from stillscan.operators.errors import ModelError, SettingsError
from stillscan.operators.volume import Place

Series = Float[Tensor, "slice height width"]
Conditioning = Literal["blind", "oracle"]

SKIMAGE = "pip install '.[evaluate]' in the checkout"
BM3D = "BM3D (oracle noise)"
MODALITIES = {"mr": "MR", "xray": "CR", "ct": "CT"}
UNREAD = NoiseProfile(1.0, (0.0,), (1.0,), np.pad([[1.0]], MAX_LAG), "gaussian")


class UnknownMethodError(SettingsError):
    """No row of the tables has this name."""

    reason = "unknown-method"


@dataclass(frozen=True)
class Method:
    """One row of the tables.

    Attributes:
        name: name in the tables and for `--methods`.
        conditioning: whether it gets the simulated noise (`oracle`) or estimates it (`blind`).
        denoiser: for a noise (None: real) and a domain; None if it cannot use that noise.
        gated: whether the quality gate is applied to its result.
        alone: estimates the noise itself, so that no profile is measured for it.
        costly: needs many passes of a large network; measured on fewer slices and noises.
        fingerprint: digest of its weights; after a change of weights it is measured again.
    """

    name: str
    conditioning: Conditioning
    denoiser: Callable[[NoiseCase | None, str], Denoiser | None]
    gated: bool = False
    alone: bool = False
    costly: bool = False
    fingerprint: str = ""

    def run(
        self,
        noisy: Series,
        domain: str,
        truth: NoiseProfile | None = None,
        case: NoiseCase | None = None,
        places: Sequence[Place] | None = None,
    ) -> Run | None:
        """Denoise a series; None if the method does not apply.

        Args:
            noisy: noisy slices on the network's intensity scale.
            domain: selects one of several bundles.
            truth: the noise that was added; None for real noise.
            case: name and distribution of the noise; None for real noise.
            places: of the slices, where the series holds some of them more than once.
        """
        denoiser = self.denoiser(case, domain)
        if denoiser is None:
            return None
        # processor time of all cores; wall-clock time if a GPU is used
        on_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        clock = time.perf_counter if on_gpu else time.process_time
        began = clock()
        profile = UNREAD if self.alone else truth if self.conditioning == "oracle" else None
        result = denoise_series(
            denoiser,
            noisy,
            profile,
            gated=self.gated,
            places=places,
            modality=MODALITIES.get(domain, ""),
        )
        return Run(result, clock() - began)


@dataclass(frozen=True)
class Run:
    """A denoised series and its time: core-seconds, or wall-clock seconds on a GPU."""

    denoised: Denoised
    seconds: float


def peers(named: Sequence[str]) -> Iterator[Method]:
    """Yield the noisy image, scikit-image's denoisers, and BM3D if it is installed.

    Raises:
        PackageMissingError: if scikit-image, or BM3D requested by name, is not installed.
    """
    need("skimage", SKIMAGE)
    need("pywt", SKIMAGE)
    yield Method("noisy", "blind", always(IdentityDenoiser()), alone=True)
    yield Method("NLM", "blind", always(SliceBySlice(nlm)), alone=True)
    yield Method("TV", "blind", always(SliceBySlice(total_variation)), alone=True)
    yield Method("wavelet", "blind", always(SliceBySlice(wavelet)), alone=True)
    if any(name and BM3D.startswith(name) for name in named):
        need("bm3d", "it is licensed for non-commercial use and not part of Stillscan")
    if is_installed("bm3d"):
        yield Method(
            BM3D, "oracle", lambda case, _: bm3d_oracle(case) if case else None, alone=True
        )


def bundles_by_domain(folder: Path) -> dict[str, BundleInfo]:
    """Choose the bundle for each domain; a folder may hold one, or one for each.

    Raises:
        ModelError: if there is none, or one cannot be read.
    """
    found = available_bundles(folder, None)
    chosen = {}
    for domain, modality in MODALITIES.items():
        serving = [info for info in found if modality in info.modalities]
        chosen[domain] = (serving or found)[0]
    return chosen


def students(folder: Path, device: str, suffix: str = "") -> Iterator[Method]:
    """Yield the students of one or more bundles, as in the application and with oracle noise.

    Raises:
        ModelError: if a bundle cannot be loaded.
    """
    by_domain = bundles_by_domain(folder)
    folders = list(dict.fromkeys(info.folder for info in by_domain.values()))
    for mode, precision in _kinds(folders, device):
        engine: WantedEngine = "openvino" if precision == "int8" else "torch"
        having = [each for each in folders if precision != "int8" or _has_int8(each)]
        try:
            loaded = {each: load_mode(each, mode, device, precision, engine) for each in having}
        except (BundleError, EngineError) as error:
            raise ModelError(str(error)) from error
        denoiser = partial(_of_domain, by_domain, loaded)
        mark = "+".join(digest[:12] for _, digest in loaded.values())
        name = mode.replace("_", " ") + (" int8" if precision == "int8" else "")
        yield Method(f"{name}{suffix}", "blind", denoiser, gated=True, fingerprint=mark)
        yield Method(f"{name}{suffix} (oracle noise)", "oracle", denoiser, fingerprint=mark)


def _kinds(folders: Sequence[Path], device: str) -> Iterator[tuple[BundleMode, str]]:
    """Yield mode and precision of the students; int8 needs a CPU and a bundle that has it."""
    yield "student", "auto"
    if all((each / FAST_STUDENT).is_file() for each in folders):
        yield "fast_student", "auto"
    if device == "cpu" and any(map(_has_int8, folders)):
        yield "fast_student", "int8"


def _has_int8(folder: Path) -> bool:
    return (folder / FAST_STUDENT_INT8).is_file()


def _of_domain(
    by_domain: Mapping[str, BundleInfo],
    loaded: Mapping[Path, tuple[Denoiser, str]],
    case: NoiseCase | None,
    domain: str,
) -> Denoiser | None:
    denoiser, _ = loaded.get(by_domain.get(domain, by_domain["mr"]).folder, (None, ""))
    return denoiser


def choose(methods: Iterable[Method], named: Sequence[str]) -> list[Method]:
    """Return the requested methods, or all; `noisy` is always included.

    A name chooses all methods that begin with it: `student` includes `student (oracle noise)`.

    Raises:
        UnknownMethodError: if a name matches no method.
    """
    known = list(methods)
    chosen = {"noisy"}
    for name in named:
        found = {each.name for each in known if each.name.startswith(name)}
        if not found:
            there = ", ".join(each.name for each in known)
            raise UnknownMethodError(f"unknown method '{name}'; known methods: {there}")
        chosen |= found
    return [each for each in known if not named or each.name in chosen]


def always(denoiser: Denoiser) -> Callable[[NoiseCase | None, str], Denoiser]:
    """Use the same denoiser for every noise and domain."""
    return lambda case, domain: denoiser
