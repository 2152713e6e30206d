"""`python -m bench.evaluation`: how good the student is, blind, on subjects it never saw.

Simulated noise on the test subjects (PSNR and SSIM against the image the noise was added to) and
the real repeated scans (error against the independent repeat), beside scikit-image's NLM and, where
the user has installed it, BM3D told the truth. All but BM3D are told nothing about the noise. Fixed
seed; prints Markdown and saves it with the figures as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from jaxtyping import Float32
from torch import Generator, Tensor

from app.training_images import subjects
from bench.quality import nlm
from bench.repeats import Repeat, repeats
from models import noise
from models.bundle import load_bundle
from models.denoiser import Denoiser
from models.metrics import psnr, ssim
from models.noise_estimation import estimate_noise_profile
from models.noise_profile import NoiseProfile
from models.student import StudentDenoiser, StudentNetwork
from operators.gate import judge
from operators.gate_limits import GateLimits

Slices = Float32[np.ndarray, "slice row column"]

SLICES_PER_SUBJECT = 4
PROFILE_SLICES = 8
COVERAGE_NOISES = ("gaussian 6", "gaussian 15", "correlated 1.2 px 15", "poisson 200")
NOISES: dict[str, Callable[[Tensor, Generator], Tensor]] = {
    "gaussian 1": lambda x, g: noise.add_gaussian(x, 1 / 255, g),
    "gaussian 3": lambda x, g: noise.add_gaussian(x, 3 / 255, g),
    "gaussian 6": lambda x, g: noise.add_gaussian(x, 6 / 255, g),
    "gaussian 15": lambda x, g: noise.add_gaussian(x, 15 / 255, g),
    "gaussian 25": lambda x, g: noise.add_gaussian(x, 25 / 255, g),
    "correlated 0.5 px 6": lambda x, g: noise.add_correlated(x, 6 / 255, 0.5, g),
    "correlated 1.2 px 6": lambda x, g: noise.add_correlated(x, 6 / 255, 1.2, g),
    "correlated 1.2 px 15": lambda x, g: noise.add_correlated(x, 15 / 255, 1.2, g),
    "poisson 200": lambda x, g: noise.add_poisson(x, 200.0, g),
    "poisson 700": lambda x, g: noise.add_poisson(x, 700.0, g),
    "gamma 100": lambda x, g: noise.add_gamma(x, 100.0, g),
    "gamma 500": lambda x, g: noise.add_gamma(x, 500.0, g),
    "rician 6": lambda x, g: noise.add_rician(x, 6 / 255, g),
    "rician 15": lambda x, g: noise.add_rician(x, 15 / 255, g),
}


@dataclass(frozen=True)
class SimulatedRow:
    """One method on one noise on one subject: mean over its slices."""

    subject: str
    domain: str
    noise: str
    method: str
    psnr: float
    ssim: float


@dataclass(frozen=True)
class CoverageRow:
    """How often the student's error stays within one and two of the deviations that it states."""

    domain: str
    noise: str
    within_one: float
    within_two: float


@dataclass(frozen=True)
class RepeatRow:
    """Root mean square difference from the independent repeat, stored units, mean over slices.

    `better` counts slices (of those with structure) whose difference the student lowers; `worst` is
    the highest ratio after / before of any slice.
    """

    scan: str
    slices: int
    better: int
    noisy: float
    student: float
    nlm: float
    worst: float


def main(
    data: Annotated[Path, typer.Option(envvar="STILLSCAN_DATA", help="folder with `dev`")],
    bundle: Annotated[Path, typer.Option(help="the student")] = Path("models/bundles/mr"),
    checkpoint: Annotated[Path | None, typer.Option(help="a training run's, instead")] = None,
    domain: Annotated[str, typer.Option(help="mr, xray or ct; empty: all")] = "",
    out: Annotated[Path, typer.Option(help="tables go here")] = Path("bench/results"),
    bm3d: Annotated[bool, typer.Option(help="also BM3D (your own installation)")] = False,
) -> None:
    """Measure one student on all test subjects and all repeated scans."""
    student = _from_checkpoint(checkpoint) if checkpoint else load_bundle(bundle).denoiser
    simulated = list(_simulated(data, student, domain, bm3d))
    repeated = [_against_repeat(repeat, student) for repeat in repeats(data / "dev")]
    covered = list(_coverage(data, student, domain))
    tables = (_simulated_table(simulated), _repeat_table(repeated), _coverage_table(covered))
    text = "\n".join(tables)
    typer.echo(text)
    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.md").write_text(text, encoding="utf-8")
    figures = {
        "simulated": [asdict(row) for row in simulated],
        "repeats": [asdict(row) for row in repeated],
        "coverage": [asdict(row) for row in covered],
    }
    (out / "evaluation.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")


def _from_checkpoint(path: Path) -> StudentDenoiser:
    network = StudentNetwork()
    network.load_state_dict(torch.load(path, weights_only=True)["average"])
    return StudentDenoiser(network)


def denoise_blind(student: Denoiser, slices: Slices) -> Slices:
    """The application's way: one profile for the series, from PROFILE_SLICES slices; the gate."""
    tensors = [torch.from_numpy(image) for image in slices]
    step = max(1, len(tensors) // PROFILE_SLICES)
    profile = estimate_noise_profile(tensors[::step][:PROFILE_SLICES])
    denoised = [_gated(student, image, profile) for image in tensors]
    return np.stack(denoised)


def _gated(student: Denoiser, image: Tensor, profile: NoiseProfile) -> np.ndarray:
    """What the gate lets out; what came in where it refuses."""
    noisy = image[None, None]
    estimate = student.denoise(noisy, profile).mean[:, 0].numpy()
    sigma = profile.sigma_map(noisy)[:, 0].numpy()
    pixels, _ = judge(noisy[:, 0].numpy(), estimate, sigma, profile.acf, GateLimits())
    return np.asarray(pixels[0])


def _simulated(
    data: Path, student: Denoiser, domain: str, with_bm3d: bool
) -> Iterator[SimulatedRow]:
    generator = torch.Generator().manual_seed(0)
    for item, slices in subjects(data, "test"):
        if domain not in ("", item.domain):
            continue
        clean = slices[:: max(1, len(slices) // SLICES_PER_SUBJECT)][:SLICES_PER_SUBJECT]
        series = [clean] if item.domain != "xray" else [image[None] for image in clean]
        for name, add in NOISES.items():
            noisy = [_corrupted(part, add, generator) for part in series]
            estimates = {
                "noisy": noisy,
                "NLM": [np.stack([nlm(image) for image in part]) for part in noisy],
                "student": [denoise_blind(student, part) for part in noisy],
            }
            told = _bm3d_told(name) if with_bm3d else None
            if told is not None:
                estimates["BM3D told"] = [told(part) for part in noisy]
            for method, parts in estimates.items():
                subject = f"{item.name} {item.array}".strip()
                yield _row(subject, item.domain, name, method, np.concatenate(parts), clean)


def _corrupted(
    slices: Slices, add: Callable[[Tensor, Generator], Tensor], generator: Generator
) -> Slices:
    return np.stack([add(torch.from_numpy(image), generator).numpy() for image in slices])


def _row(
    subject: str, domain: str, noise_name: str, method: str, estimates: Slices, clean: Slices
) -> SimulatedRow:
    pairs = [
        (torch.from_numpy(estimate), torch.from_numpy(true))
        for estimate, true in zip(estimates, clean, strict=True)
    ]
    peak = float(np.mean([psnr(estimate, true) for estimate, true in pairs]))
    similarity = float(np.mean([ssim(estimate, true) for estimate, true in pairs]))
    return SimulatedRow(subject, domain, noise_name, method, peak, similarity)


def _bm3d_told(name: str) -> Callable[[Slices], Slices] | None:
    """BM3D told sigma (white) or the true spectrum (correlated); None for the other families."""
    from bm3d import bm3d

    words = name.split()
    sigma = float(words[-1]) / 255
    if words[0] == "gaussian":
        return lambda slices: np.stack([np.asarray(bm3d(i, sigma), np.float32) for i in slices])
    if words[0] != "correlated":
        return None
    length = float(words[1])

    def told(slices: Slices) -> Slices:
        height, width = slices.shape[1:]
        spectrum = noise.gaussian_spectrum(height, width, length, length)
        density = (spectrum / spectrum.mean()).numpy() * sigma**2 * height * width
        return np.stack([np.asarray(bm3d(image, density), np.float32) for image in slices])

    return told


def _against_repeat(repeat: Repeat, student: Denoiser) -> RepeatRow:
    scale = float(np.quantile(repeat.first, 0.999))
    first, second = (repeat.first / scale).astype(np.float32), repeat.second / scale
    structured = [i for i, image in enumerate(first) if np.quantile(image, 0.99) > 0.1]

    def difference(images: Slices) -> np.ndarray:
        return np.sqrt(((images - second) ** 2).mean((1, 2)))[structured] * scale

    before, after = difference(first), difference(denoise_blind(student, first))
    peers = difference(np.stack([nlm(image) for image in first]))
    return RepeatRow(
        scan=repeat.name,
        slices=len(structured),
        better=int((after < before).sum()),
        noisy=float(before.mean()),
        student=float(after.mean()),
        nlm=float(peers.mean()),
        worst=float((after / before).max()),
    )


def _coverage(data: Path, student: Denoiser, domain: str) -> Iterator[CoverageRow]:
    """On the pixels with signal of two slices of each test subject, told nothing."""
    generator = torch.Generator().manual_seed(1)
    shares: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for item, slices in subjects(data, "test"):
        if domain not in ("", item.domain):
            continue
        for name in COVERAGE_NOISES:
            for image in slices[:: max(1, len(slices) // 2)][:2]:
                clean = torch.from_numpy(image)
                noisy = NOISES[name](clean, generator)
                profile = estimate_noise_profile([noisy])
                estimate = student.denoise(noisy[None, None], profile)
                if estimate.spread is None:
                    return
                error = (estimate.mean[0, 0] - clean).abs() / estimate.spread[0, 0]
                error = error[clean > 0.1]
                pair = (float((error < 1).float().mean()), float((error < 2).float().mean()))
                shares.setdefault((item.domain, name), []).append(pair)
    for (found, name), pairs in shares.items():
        one, two = np.mean(pairs, axis=0)
        yield CoverageRow(found, name, float(one), float(two))


def _coverage_table(rows: Sequence[CoverageRow]) -> str:
    lines = ["| domain | noise | within 1 | within 2 |", "|---" * 4 + "|"]
    lines += [f"| {r.domain} | {r.noise} | {r.within_one:.1%} | {r.within_two:.1%} |" for r in rows]
    head = "Error within one and two of the stated deviations (a normal law: 68.3 %, 95.4 %)\n\n"
    return head + "\n".join(lines) + "\n"


def _simulated_table(rows: Sequence[SimulatedRow]) -> str:
    methods = list(dict.fromkeys(row.method for row in rows))
    lines = ["| domain | noise | " + " | ".join(methods) + " |", "|---" * (len(methods) + 2) + "|"]
    for domain, name in dict.fromkeys((row.domain, row.noise) for row in rows):
        cells = []
        for method in methods:
            key = (domain, name, method)
            chosen = [r for r in rows if (r.domain, r.noise, r.method) == key]
            means = np.mean([(r.psnr, r.ssim) for r in chosen], axis=0) if chosen else None
            cells.append("" if means is None else f"{means[0]:.2f} / {means[1]:.3f}")
        lines.append(f"| {domain} | {name} | " + " | ".join(cells) + " |")
    return "PSNR in dB / SSIM, mean over the test subjects\n\n" + "\n".join(lines) + "\n"


def _repeat_table(rows: Sequence[RepeatRow]) -> str:
    lines = ["| scan | slices | better | noisy | student | NLM | worst ratio |", "|---" * 7 + "|"]
    lines += [
        f"| {r.scan} | {r.slices} | {r.better} | {r.noisy:.2f} | {r.student:.2f} | {r.nlm:.2f} "
        f"| {r.worst:.3f} |"
        for r in rows
    ]
    return "RMS difference from the independent repeat, stored units\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
