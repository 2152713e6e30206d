"""Core-seconds per slice of each stage of a run, and of engines and peers beside the student."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import torch
from jaxtyping import Float32

from bench.phantom.acquisition import Protocol, acquire
from bench.speed.peak import least_core_seconds, peak_gflops, precisions, student_gflop
from bench.speed.whole_run import write_long_series
from stillscan.app.evaluation.noise_cases import noise_case
from stillscan.app.evaluation.peers import bm3d_oracle, is_installed, nlm, total_variation, wavelet
from stillscan.app.settings import load_settings
from stillscan.models.bundle import (
    FAST_STUDENT,
    FAST_STUDENT_INT8,
    BundleMode,
    load_bundle,
    load_mode,
)
from stillscan.models.denoisers.denoiser import Denoiser
from stillscan.models.denoisers.student import StudentDenoiser
from stillscan.models.engines.engine import WantedEngine
from stillscan.models.noise.estimation import estimate_noise_profile
from stillscan.models.noise.profile import NoiseProfile
from stillscan.operators.denoising.gate import judge
from stillscan.operators.denoising.gate_limits import GateLimits
from stillscan.operators.denoising.intensity import scaling_for
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import find_series, read_series
from stillscan.operators.volume import VolumeBlock
from stillscan.operators.writing.derive_series import SeriesWriter
from stillscan.operators.writing.provenance import Provenance

MATRIX = 512
TEACHER_CROP = 256  # its time is in proportion to the pixels
SLICES = 8  # read and written
ENGINES: tuple[WantedEngine, ...] = ("torch", "ncnn", "openvino")
PEER_RUNS = 2
CONTROL = Provenance("0", "none", "0" * 64, "identity", 1.0, "none", "float32", "cpu")


@dataclass(frozen=True)
class StageTime:
    """One row: what, on which image, how long.

    Attributes:
        core_seconds: of one slice, all threads together.
        wall_seconds: of one slice; under load more than it need be.
        share_of_peak: of the convolution rate of as many cores; None where there is none.
        psnr_loss: dB below the student in float32 on the same noisy slice.
    """

    what: str
    matrix: int
    threads: int
    core_seconds: float
    wall_seconds: float
    share_of_peak: float | None = None
    psnr_loss: float | None = None


@dataclass(frozen=True)
class _Example:
    """A slice of the generated head in network numbers."""

    clean: torch.Tensor
    noisy: torch.Tensor
    noise: NoiseProfile


def measure_stages(bundle: Path, threads: tuple[int, ...] = (1, 2)) -> Iterator[StageTime]:
    """Students by engine and precision, teacher, gate, read, write, peers."""
    example = _example()
    for count in threads:
        torch.set_num_threads(count)
        yield from _students(bundle, example, count)
    torch.set_num_threads(1)
    yield from _teacher(bundle, example)
    yield _gate(bundle, example)
    yield from _files()
    yield from _peers(example)


def _example() -> _Example:
    protocol = Protocol(matrix=MATRIX, phase_steps=MATRIX * 3 // 4, slices=1, first_mm=46)
    (image,) = acquire(protocol, seed=7)
    scaling = scaling_for("1", image.noisy.reshape(-1))
    clean, noisy = (torch.from_numpy(scaling.to_network(i)) for i in (image.truth, image.noisy))
    return _Example(clean[None, None], noisy[None, None], estimate_noise_profile([noisy]))


def _students(bundle: Path, example: _Example, threads: int) -> Iterator[StageTime]:
    yield from _student(bundle, "student", example, threads)
    if (bundle / FAST_STUDENT).is_file():
        yield from _student(bundle, "fast_student", example, threads)


def _student(
    bundle: Path, mode: BundleMode, example: _Example, threads: int
) -> Iterator[StageTime]:
    """One of the students by engine and precision."""
    exact, _ = load_mode(bundle, mode, precision="float32")
    assert isinstance(exact, StudentDenoiser)
    exact_psnr = _psnr(exact, example)
    work = student_gflop(exact.network, MATRIX**2)
    has_int8 = mode == "fast_student" and (bundle / FAST_STUDENT_INT8).is_file()
    for precision in precisions():
        peak = peak_gflops(precision) if threads == 1 else None
        for engine in ENGINES:
            if engine != "torch" and not find_spec(engine):
                continue
            if precision != "float32" and engine == "ncnn":
                continue
            if precision == "int8" and (engine != "openvino" or not has_int8):
                continue
            denoiser, _ = load_mode(bundle, mode, precision=precision, engine=engine)
            core, wall = _seconds(lambda: denoiser.denoise(example.noisy, example.noise))  # noqa: B023
            yield StageTime(
                f"{mode.replace('_', ' ')}, {engine} {precision}",
                MATRIX,
                threads,
                core,
                wall,
                peak and work / core / peak,
                exact_psnr - _psnr(denoiser, example),
            )


def _teacher(bundle: Path, example: _Example) -> Iterator[StageTime]:
    """The teacher on a crop, stated for a whole slice."""
    begin = (MATRIX - TEACHER_CROP) // 2
    middle = slice(begin, begin + TEACHER_CROP)
    crop = example.noisy[..., middle, middle]
    whole = (MATRIX / TEACHER_CROP) ** 2
    for mode in ("blind_spot", "one_step", "srds"):
        denoiser, _ = load_mode(bundle, mode)
        seeded = denoiser.seeded([7]) if hasattr(denoiser, "seeded") else denoiser
        core, wall = _seconds(lambda: seeded.denoise(crop, example.noise), runs=1)  # noqa: B023
        yield StageTime(f"teacher, {mode}", MATRIX, 1, core * whole, wall * whole)


def _gate(bundle: Path, example: _Example) -> StageTime:
    student = load_bundle(bundle, precision="float32").denoiser
    estimate = student.denoise(example.noisy, example.noise).mean[:, 0].numpy()
    noisy = example.noisy[:, 0].numpy()
    sigma = example.noise.sigma_map(example.noisy)[:, 0].numpy()
    core, wall = _seconds(lambda: judge(noisy, estimate, sigma, example.noise.acf, GateLimits()))
    return StageTime("gate", MATRIX, 1, core, wall)


def _files() -> Iterator[StageTime]:
    """Reading (parsing child included) and writing, per slice of a series."""
    with tempfile.TemporaryDirectory(prefix="stillscan-bench-") as name, Decoder() as decoder:
        folder = Path(name)
        write_long_series(folder / "in", SLICES, MATRIX)
        began, used = time.perf_counter(), _all_seconds(decoder)
        (candidate,) = find_series(folder / "in", decoder, load_settings().selection).candidates
        volume = read_series(candidate, decoder)
        blocks = list(volume.blocks())
        yield _per_slice("read", time.perf_counter() - began, _all_seconds(decoder) - used)
        began, used = time.perf_counter(), _all_seconds(decoder)
        with SeriesWriter(volume, CONTROL, folder) as writer:
            for block in blocks:
                writer.add(_Unchanged(block, block.pixels))
            writer.finish()
        yield _per_slice("write", time.perf_counter() - began, _all_seconds(decoder) - used)


@dataclass(frozen=True)
class _Unchanged:
    """A block that went through no network."""

    block: VolumeBlock
    pixels: Float32[np.ndarray, "slice row column"]


def _per_slice(what: str, wall: float, core: float) -> StageTime:
    return StageTime(what, MATRIX, 1, core / SLICES, wall / SLICES)


def _all_seconds(decoder: Decoder) -> float:
    """Processor time so far, the reading child's included."""
    own = time.process_time()
    if decoder.process_id is None:
        return own
    child = psutil.Process(decoder.process_id).cpu_times()
    return own + float(child.user + child.system)


def _peers(example: _Example) -> Iterator[StageTime]:
    noisy = example.noisy[0, 0].numpy()
    peers: dict[str, Callable[[], object]] = {
        "NLM (scikit-image)": lambda: nlm(noisy),
        "TV (scikit-image)": lambda: total_variation(noisy),
        "wavelet (scikit-image)": lambda: wavelet(noisy),
        **_opencv(noisy),
    }
    for name, work in peers.items():
        core, wall = _seconds(work, PEER_RUNS)
        yield StageTime(name, MATRIX, 1, core, wall)
    oracle = bm3d_oracle(noise_case("gaussian 15")) if is_installed("bm3d") else None
    if oracle is not None:  # installed by the user: its licence is non-commercial
        core, wall = _seconds(lambda: oracle.function(noisy), runs=1)
        yield StageTime("BM3D (installed by the user)", MATRIX, 1, core, wall)


def _opencv(noisy: np.ndarray) -> dict[str, Callable[[], object]]:
    """OpenCV's NLM, which knows 8 bits alone, where it is installed."""
    if not is_installed("cv2"):
        return {}
    import cv2

    grey = np.clip(noisy * 255, 0, 255).astype(np.uint8)
    return {"NLM (OpenCV, 8 bits)": lambda: cv2.fastNlMeansDenoising(grey, None, 10.0)}


def _psnr(denoiser: Denoiser, example: _Example) -> float:
    found = denoiser.denoise(example.noisy, example.noise).mean
    return float(-10 * (found - example.clean).square().mean().log10())


def _seconds(work: Callable[[], object], runs: int = 5) -> tuple[float, float]:
    """Core-seconds and wall seconds, each the least of some runs."""
    walls = []

    def timed() -> None:
        began = time.perf_counter()
        work()
        walls.append(time.perf_counter() - began)

    core = least_core_seconds(timed, runs)
    return core, min(walls)
