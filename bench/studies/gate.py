"""`python -m bench.studies.gate`: structures that the gate catches, its cost and false alarms.

Structures are added to the student's estimate of test slices (invented: a blob that is not in
the image; erased: the same with the other sign), each with a known noise-free score z at its own
scale. Caught means clamped at its place, or the slice refused. False alarms and the cost are of the
same slices with nothing added. Fixed seed; prints and saves Markdown and JSON.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from jaxtyping import Float32

from stillscan.app.datasets.development_data import subjects
from stillscan.app.evaluation.noise_cases import noise_case
from stillscan.models.bundle import load_bundle
from stillscan.models.metrics.confidence_intervals import wilson
from stillscan.models.metrics.image_quality import psnr
from stillscan.models.noise.estimation import estimate_noise_profile
from stillscan.models.noise.profile import NoiseProfile
from stillscan.operators.denoising.gate import judge
from stillscan.operators.denoising.gate_limits import GateLimits
from stillscan.operators.denoising.multiscale_clamp import SCALES, clamp, smoothed_deviation

Plane = Float32[np.ndarray, "row column"]

PLANTED = (3, 4, 5, 6, 7, 8, 9, 10)
WINDOW = 128  # pixels
PLACES = 4  # structures added per slice, scale and sign
FAMILIES = ("gaussian 3", "gaussian 15", "correlated 1.2 px 15", "poisson 200", "rician 6")


@dataclass(frozen=True)
class Slice:
    """A test slice: truth, noisy image, the student's estimate and its noise profile."""

    clean: Plane
    noisy: Plane
    estimate: Plane
    profile: NoiseProfile

    @property
    def sigma(self) -> Plane:
        """Return the noise level of each pixel."""
        return np.asarray(self.profile.sigma_map(torch.from_numpy(self.noisy)[None, None])[0, 0])


def main(
    data: Annotated[Path, typer.Option(envvar="STILLSCAN_DATA", help="folder with `dev`")],
    bundle: Annotated[Path, typer.Option(help="bundle of the student")] = Path("models/bundles/mr"),
    out: Annotated[Path, typer.Option(help="folder for the tables")] = Path("bench/results"),
) -> None:
    """Measure the gate on the test subjects."""
    slices = list(_slices(data, bundle))
    rng = np.random.default_rng(0)
    caught = {z: _caught(slices, float(z), rng) for z in PLANTED}
    good = _good(slices)
    lines = ["| noise-free z | added | caught | 95 % interval |", "|---" * 4 + "|"]
    for z, (found, added) in caught.items():
        sure = wilson(found, added)
        lines.append(f"| {z} | {added} | {sure.value:.1%} | {sure.low:.1%} .. {sure.high:.1%} |")
    lines += ["", "| The same slices, nothing added | |", "|---|---|"]
    lines += [f"| {name} | {value:.3g} |" for name, value in good.items()]
    text = "\n".join(lines) + "\n"
    typer.echo(text)
    out.mkdir(parents=True, exist_ok=True)
    (out / "gate.md").write_text(text, encoding="utf-8")
    (out / "gate.json").write_text(json.dumps({"caught": caught, "good": good}, indent=1))


def _slices(data: Path, bundle: Path) -> Iterator[Slice]:
    student = load_bundle(bundle).denoiser
    generator = torch.Generator().manual_seed(0)
    for _, images in subjects(data, "test"):
        for clean in images[:: max(1, len(images) // 2)][:2]:
            for family in FAMILIES:
                noisy = noise_case(family).add(torch.from_numpy(clean), generator)
                profile = estimate_noise_profile([noisy])
                estimate = student.denoise(noisy[None, None], profile).mean[0, 0]
                yield Slice(clean, noisy.numpy(), estimate.numpy(), profile)


def _caught(slices: list[Slice], z: float, rng: np.random.Generator) -> tuple[int, int]:
    """Return how many added structures of noise-free score z are clamped, and their number."""
    limit = GateLimits().clamp_score
    found = added = 0
    for item in slices:
        sigma, acf = item.sigma, item.profile.acf
        residual = (item.noisy - item.estimate) / sigma
        for scale in SCALES:
            for sign in (1, -1):
                for _ in range(PLACES):
                    part = _window(residual, rng)
                    blob = sign * z * _unit_blob(part.shape, scale, acf)
                    weight = clamp(torch.from_numpy(part + blob)[None], acf, limit).weight[0]
                    found += bool(weight[part.shape[0] // 2, part.shape[1] // 2] < 0.99)
                    added += 1
    return found, added


def _window(residual: Plane, rng: np.random.Generator) -> Plane:
    """Cut a random window whose middle does not depend on pixels outside it."""
    top, left = (int(rng.integers(0, max(1, side - WINDOW + 1))) for side in residual.shape)
    return residual[top : top + WINDOW, left : left + WINDOW]


def _unit_blob(shape: tuple[int, ...], scale: float, acf: np.ndarray) -> Plane:
    """Return a Gaussian blob of `scale` pixels with score 1 in its middle at its scale."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    middle = (y - shape[0] // 2) ** 2 + (x - shape[1] // 2) ** 2
    blob = np.exp(-middle / (2 * scale**2))
    smoothed = 0.5  # a Gaussian smoothed by one of its own width keeps half its height
    return np.asarray(blob * smoothed_deviation(acf, scale) / smoothed, np.float32)


def _good(slices: list[Slice]) -> dict[str, float]:
    clamped, refused, lost, seconds = [], [], [], []
    for item in slices:
        started = time.process_time()
        pixels, verdict = judge(
            item.noisy[None], item.estimate[None], item.sigma[None], item.profile.acf, GateLimits()
        )
        seconds.append((time.process_time() - started) / item.noisy.size * 512**2)
        refused.append(verdict.decision == "refuse")
        clamped.append(verdict.measurements["clamped_share"])
        truth = torch.from_numpy(item.clean)
        before = psnr(torch.from_numpy(item.estimate), truth)
        lost.append(before - psnr(torch.from_numpy(pixels[0]), truth))
    return {
        "slices": float(len(slices)),
        "refused (share)": float(np.mean(refused)),
        "clamped pixels (share)": float(np.mean(clamped)),
        "PSNR lost by the clamp (dB, worst accepted slice)": max(
            loss for loss, gone in zip(lost, refused, strict=True) if not gone
        ),
        "core-s per 512x512 slice": float(np.median(seconds)),
    }


if __name__ == "__main__":
    typer.run(main)
