"""Core-seconds of a denoiser on one 512x512 slice, and its PSNR beside NLM's on the same slices."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench.phantom.acquisition import Protocol, acquire
from bench.quality import Quality, Series, quality
from stillscan.app.evaluation.peers import nlm
from stillscan.models.bundle import load_bundle
from stillscan.models.noise.estimation import estimate_noise_profile
from stillscan.operators.denoising.intensity import scaling_for

RUNS = 7
SLICES = 4


@dataclass(frozen=True)
class SliceTime:
    """One method on 512x512 slices of the generated head.

    Attributes:
        core_seconds: median processor time of one slice on one thread.
        quality: of its result; None where the method does not know how to do the image.
    """

    method: str
    core_seconds: float
    quality: Quality


def measure_slices(bundle: Path) -> list[SliceTime]:
    """NLM, and the student in float32 and in its default precision, on the same noisy slices."""
    torch.set_num_threads(1)
    protocol = Protocol(matrix=512, phase_steps=384, slices=SLICES, spacing_mm=14, first_mm=4)
    images = list(acquire(protocol, seed=7))
    noisy = np.stack([image.noisy for image in images])
    truth = np.stack([image.truth for image in images])
    lesions = np.stack([image.lesions for image in images])

    def measured(method: str, denoise: Callable[[Series], Series]) -> SliceTime:
        denoise(noisy[:1])  # warm
        seconds = []
        for run in range(RUNS):
            one = noisy[run % SLICES : run % SLICES + 1]
            began = time.process_time()
            denoise(one)
            seconds.append(time.process_time() - began)
        results = np.concatenate([denoise(noisy[index : index + 1]) for index in range(SLICES)])
        return SliceTime(method, statistics.median(seconds), quality(results, truth, lesions))

    return [
        measured("noisy", lambda series: series),
        measured("NLM (scikit-image)", lambda series: nlm(series[0])[None]),
        *_bm3d(measured),
        measured("student, float32", _student(bundle, "float32", noisy)),
        measured("student, default precision", _student(bundle, "auto", noisy)),
    ]


def _student(bundle: Path, precision: str, noisy: Series) -> Callable[[Series], Series]:
    """The network of a bundle with scaling and noise found from the series, as a run does."""
    denoiser = load_bundle(bundle, precision=precision).denoiser
    scaling = scaling_for("1", noisy.reshape(-1))
    profile = estimate_noise_profile([torch.from_numpy(scaling.to_network(one)) for one in noisy])

    def denoise(series: Series) -> Series:
        image = torch.from_numpy(scaling.to_network(series))[:, None]
        return scaling.to_modality(denoiser.denoise(image, profile).mean[:, 0].numpy())

    return denoise


def _bm3d(measured: Callable[[str, Callable[[Series], Series]], SliceTime]) -> list[SliceTime]:
    """BM3D, where its user installed it: its licence lets nobody else do so."""
    try:
        import bm3d
    except ImportError:
        return []
    from skimage.restoration import estimate_sigma

    def denoise(series: Series) -> Series:
        sigma = float(estimate_sigma(series[0]))
        return np.asarray(bm3d.bm3d(series[0], sigma), np.float32)[None]

    return [measured("BM3D (installed by the user)", denoise)]
