"""The rows of the tables: every method behind one signature, and what each is told.

Told nothing: the method finds out about the noise itself (the student: profile of the series and
gate, as in the application). Told the truth: the noise that was added. On real noise nobody knows
the truth; there whoever needs to be told gets the profile of the series.
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
from stillscan.app.evaluation.blind_denoising import Again, Denoised, denoise_series
from stillscan.app.evaluation.noise_cases import NoiseCase
from stillscan.app.evaluation.peers import (
    SliceBySlice,
    bm3d_told,
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

Series = Float[Tensor, "slice height width"]
Told = Literal["nothing", "truth"]

SKIMAGE = "pip install '.[evaluate]' in the checkout"
BM3D = "BM3D told"
MODALITIES = {"mr": "MR", "xray": "CR", "ct": "CT"}
UNREAD = NoiseProfile(1.0, (0.0,), (1.0,), np.pad([[1.0]], MAX_LAG), "gaussian")


class UnknownMethodError(SettingsError):
    """No row of the tables has this name."""

    reason = "unknown-method"


@dataclass(frozen=True)
class Method:
    """One row.

    Attributes:
        name: as it stands in the tables and behind `--methods`.
        told: what it is told of simulated noise.
        denoiser: for a noise (None: real) and a domain; None where it cannot be told that noise.
        gated: whether the gate judges its result.
        alone: finds out about the noise itself: no profile is measured for it.
        costly: many passes of a large network: measured on fewer slices and noises.
        fingerprint: of its weights; other weights are measured anew.
    """

    name: str
    told: Told
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
        again: Again | None = None,
    ) -> Run | None:
        """Denoise a series; None where the method cannot.

        Args:
            noisy: on the network's scale.
            domain: which of several bundles serves it.
            truth: the noise that was added; None where it is real.
            case: its name and law; None where it is real.
            again: the repeats inside the series.
        """
        denoiser = self.denoiser(case, domain)
        if denoiser is None:
            return None
        # the time of all cores together, but where a GPU works: there the clock's
        on_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        clock = time.perf_counter if on_gpu else time.process_time
        began = clock()
        profile = UNREAD if self.alone else truth if self.told == "truth" else None
        result = denoise_series(denoiser, noisy, profile, gated=self.gated, again=again)
        return Run(result, clock() - began)


@dataclass(frozen=True)
class Run:
    """A denoised series and what it took: core-seconds, or seconds of a GPU."""

    denoised: Denoised
    seconds: float


def peers(named: Sequence[str]) -> Iterator[Method]:
    """The noisy image, scikit-image's denoisers, and BM3D where it is installed.

    Raises:
        PackageMissingError: if scikit-image is not there, or BM3D was asked for by name and is not.
    """
    need("skimage", SKIMAGE)
    need("pywt", SKIMAGE)
    yield Method("noisy", "nothing", always(IdentityDenoiser()), alone=True)
    yield Method("NLM", "nothing", always(SliceBySlice(nlm)), alone=True)
    yield Method("TV", "nothing", always(SliceBySlice(total_variation)), alone=True)
    yield Method("wavelet", "nothing", always(SliceBySlice(wavelet)), alone=True)
    if any(name and BM3D.startswith(name) for name in named):
        need("bm3d", "it is licensed for non-commercial use and no part of Stillscan")
    if is_installed("bm3d"):
        yield Method(BM3D, "truth", lambda case, _: bm3d_told(case) if case else None, alone=True)


def bundles_by_domain(folder: Path) -> dict[str, BundleInfo]:
    """Which bundle serves which domain: a folder may hold one, or one for each.

    Raises:
        ModelError: if there is none, or one is broken.
    """
    found = available_bundles(folder, None)
    chosen = {}
    for domain, modality in MODALITIES.items():
        serving = [info for info in found if modality in info.modalities]
        chosen[domain] = (serving or found)[0]
    return chosen


def students(folder: Path, device: str, suffix: str = "") -> Iterator[Method]:
    """The students of one or more bundles, as the application uses them and told the truth.

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
        yield Method(f"{name}{suffix}", "nothing", denoiser, gated=True, fingerprint=mark)
        yield Method(f"{name} told{suffix}", "truth", denoiser, fingerprint=mark)


def _kinds(folders: Sequence[Path], device: str) -> Iterator[tuple[BundleMode, str]]:
    """Mode and precision of the students; int8 is a CPU's, and some bundles are without it."""
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
    """The methods that were asked for, all where none was; `noisy` is always there.

    A name also chooses all that begin with it: `student` takes `student told` too.

    Raises:
        UnknownMethodError: if a name chooses none.
    """
    known = list(methods)
    chosen = {"noisy"}
    for name in named:
        found = {each.name for each in known if each.name.startswith(name)}
        if not found:
            there = ", ".join(each.name for each in known)
            raise UnknownMethodError(f"no method is called '{name}'; there are: {there}")
        chosen |= found
    return [each for each in known if not named or each.name in chosen]


def always(denoiser: Denoiser) -> Callable[[NoiseCase | None, str], Denoiser]:
    """The same denoiser for every noise and domain."""
    return lambda case, domain: denoiser
