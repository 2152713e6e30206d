"""Measures how much of the noise a conditional diffusion model reproduces.

`python -m bench.studies.leak --data DATA`

For every network of `bench.studies.method`: PSNR on the middles of slices at sigma 15/255 with
oracle noise, the correlation of the error with the noise, and the share of the noise that is left
in the estimate, E[(x_hat - x) n] / sigma^2. An MMSE estimate has MSE / sigma^2 of it (Stein), a few
per cent. Single samples are listed with their closed form. Also draws the picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor

from bench.studies.method import white_profile
from stillscan.app.datasets.development_data import subjects
from stillscan.models.denoisers.blind_spot import BlindSpotDenoiser
from stillscan.models.denoisers.denoiser import Denoiser
from stillscan.models.denoisers.diffusion import DiffusionDenoiser, Sampling
from stillscan.models.denoisers.student import StudentDenoiser
from stillscan.models.metrics.image_quality import psnr
from stillscan.models.metrics.noise_power import error_noise_correlation
from stillscan.models.networks.blind_spot import BlindSpotNetwork
from stillscan.models.networks.conditional_diffusion import DiffusionNetwork
from stillscan.models.networks.student import StudentNetwork
from stillscan.models.networks.weights import load_network
from stillscan.models.noise.synthesis import add_gaussian
from stillscan.models.sampling.samplers import gaussian_deviation
from stillscan.models.sampling.schedule import NoiseSchedule

SIGMA = 15 / 255
STEPS = 20
CROP = 192
SHOWN = ("noisy", "blind spot", "diffusion_leaking SRDS", "diffusion SRDS")
WINDOW = 4  # in sigma: the range of the error pictures


def main(
    data: Annotated[Path, typer.Option(envvar="STILLSCAN_DATA", help="folder with `dev`")],
    method: Annotated[Path, typer.Option(help="folder of bench.studies.method")] = Path(
        "runs/method"
    ),
    picture: Annotated[Path, typer.Option(help="file for the picture, PNG")] = Path(
        "docs/leak.png"
    ),
) -> None:
    """Print the table and draw the picture."""
    schedule = NoiseSchedule.linear()
    rows = dict(_rows(method, schedule))
    tests = list(_tests(data))
    print("| estimate | PSNR dB | corr(error, noise) | noise left | closed form, dB |")
    print("|---|---|---|---|---|")
    strips: list[np.ndarray] = []
    for name, denoiser in rows.items():
        found = [_estimate(denoiser, noisy, seed) for seed, (_, noisy) in enumerate(tests)]
        pairs = list(zip(found, tests, strict=True))
        decibels = float(np.mean([psnr(x_hat, x) for x_hat, (x, _) in pairs]))
        leak = float(np.mean([error_noise_correlation(e, x, y - x) for e, (x, y) in pairs]))
        kept = float(np.mean([((e - x) * (y - x)).mean() / SIGMA**2 for e, (x, y) in pairs]))
        predicted = ""
        if name.endswith("one sample"):
            predicted = f"{_closed_form(denoiser, schedule, pairs, rows, name):.2f}"
        print(f"| {name} | {decibels:.2f} | {leak:.3f} | {kept:.1%} | {predicted} |", flush=True)
        if name in SHOWN:
            clean, _ = tests[0]
            strips.append(_strip(found[0], clean))
    Image.fromarray(np.concatenate(strips, 1)).save(picture)


def _rows(method: Path, schedule: NoiseSchedule) -> Iterator[tuple[str, Denoiser | None]]:
    yield "noisy", None
    blind_spot = load_network(method / "blind_spot.safetensors")
    assert isinstance(blind_spot, BlindSpotNetwork)
    yield "blind spot", BlindSpotDenoiser(blind_spot, centre=False)
    for path in sorted(method.glob("*.safetensors")):
        network = load_network(path)
        if isinstance(network, StudentNetwork):
            yield path.stem, StudentDenoiser(network)
        if isinstance(network, DiffusionNetwork):
            model = DiffusionDenoiser(blind_spot, network, schedule)
            yield f"{path.stem} one step", model.sampled(Sampling("one_step"))
            yield f"{path.stem} SRDS", model.sampled(Sampling("srds", STEPS))
            yield f"{path.stem} one sample", model.sampled(Sampling("sample", STEPS))


def _tests(data: Path) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for item, images in subjects(data, "test"):
        count = 4 if item.domain == "xray" else 2
        for image in images[:: max(1, len(images) // count)][:count]:
            top, left = ((n - CROP) // 2 for n in image.shape)
            clean = torch.from_numpy(image)[top : top + CROP, left : left + CROP].contiguous()
            yield clean, add_gaussian(clean, SIGMA, generator)


def _estimate(denoiser: Denoiser | None, noisy: Tensor, seed: int) -> Tensor:
    if denoiser is None:
        return noisy
    if isinstance(denoiser, DiffusionDenoiser):
        denoiser = denoiser.seeded((seed,))
    return denoiser.denoise(noisy[None, None], white_profile(SIGMA)).mean[0, 0]


def _closed_form(
    denoiser: Denoiser | None,
    schedule: NoiseSchedule,
    pairs: list[tuple[Tensor, tuple[Tensor, Tensor]]],
    rows: dict[str, Denoiser | None],
    name: str,
) -> float:
    """Predict the PSNR of a single sample from SRDS's error and the noise of S steps."""
    assert isinstance(denoiser, DiffusionDenoiser)
    pair_mean = rows[f"{name.removesuffix(' one sample')} SRDS"]
    factor = denoiser.network.profile.recorruption
    deviation = 2 * SIGMA / factor if factor else 2 * SIGMA
    extra = (gaussian_deviation(schedule, STEPS, deviation) / 2) ** 2
    levels = []
    for seed, (_, (clean, noisy)) in enumerate(pairs):
        error = float((_estimate(pair_mean, noisy, seed) - clean).square().mean())
        levels.append(-10 * math.log10(error + extra))
    return float(np.mean(levels))


def _strip(estimate: Tensor, clean: Tensor) -> np.ndarray:
    """Draw an estimate above its error, the error in grey around 0."""
    shown = (estimate / float(clean.max())).clamp(0, 1)
    error = ((estimate - clean) / (WINDOW * SIGMA) + 0.5).clamp(0, 1)
    return (torch.cat([shown, error]).numpy() * 255).round().astype(np.uint8)


if __name__ == "__main__":
    typer.run(main)
