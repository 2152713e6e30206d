"""Noise that differs over the image: what the application finds and gains, at rim and centre.

python -m bench.studies.noise_by_place [--data DATA] [--only NAME]

The references of `never_worse` with white noise from 5/255 at the rim to 20/255 at the centre, and
the reverse; one row a case: level found / true, gain in the foreground, and the gain of the same
network and gate told the true map; each at the rim and at the centre.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bench.studies.never_worse import references
from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.app.evaluation.blind_denoising import NETWORK_SCALE, denoise_series
from stillscan.models.bundle import load_bundle
from stillscan.models.denoisers.denoiser import Denoiser
from stillscan.models.noise.estimation import estimate_noise_profile
from stillscan.models.noise.profile import MAX_LAG, NoiseProfile, PlaceMap
from stillscan.operators.array_volume import array_volume
from stillscan.operators.denoising.denoise_series import denoise_block
from stillscan.operators.denoising.plan import NOT_CHECKED, plan_from, read_sample

WEAK, STRONG = 5 / 255, 20 / 255
WIDTH = 0.5  # of the Gaussian, in half sides of the image: exp(-(r / WIDTH)^2)
BUNDLES = {"MR": "mr", "CT": "ct", "DX": "xray", "CR": "xray"}


def level_map(rows: int, columns: int, rim: float, centre: float) -> np.ndarray:
    """Level at each pixel."""
    y, x = np.mgrid[:rows, :columns]
    distance = np.hypot((y + 0.5) / rows * 2 - 1, (x + 0.5) / columns * 2 - 1)
    return np.asarray(rim + (centre - rim) * np.exp(-((distance / WIDTH) ** 2)), np.float32)


def told(denoiser: Denoiser, noisy: torch.Tensor, level: np.ndarray, modality: str) -> np.ndarray:
    """The series denoised with the true map, which no measurement contradicts."""
    typical = float(np.sqrt((level**2).mean()))
    places = PlaceMap(level.astype(np.float64) / typical, (0.5, 0.5), (1.0, 1.0))
    white = np.pad([[1.0]], MAX_LAG)
    noise = NoiseProfile(typical, (0.5,), (typical,), white, "gaussian", places=places)
    volume = array_volume(noisy.numpy(), modality, [None] * len(noisy))
    plan = plan_from(read_sample(volume), scaling=NETWORK_SCALE, noise=noise)
    plan = replace(plan, noise_check=NOT_CHECKED, uneven=False)
    return np.concatenate([denoise_block(denoiser, each, plan).pixels for each in volume.blocks()])


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("STILLSCAN_DATA"))
    parser.add_argument("--only", default="", help="references whose name holds this")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name the data: --data DATA, or STILLSCAN_DATA")
    networks = {name: load_bundle(DEFAULT_BUNDLES / name).denoiser for name in ("mr", "ct", "xray")}
    for name, modality, clean in references(arguments.data):
        if arguments.only not in name:
            continue
        for rim, centre in ((WEAK, STRONG), (STRONG, WEAK)):
            rows, columns = clean.shape[1:]
            level = level_map(rows, columns, rim, centre)
            white = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
            noisy = torch.from_numpy(clean + level * white.numpy())
            noise = estimate_noise_profile(list(noisy), signal_dependent=modality != "MR")
            found = torch.cat([noise.sigma_map(image[None, None])[:, 0] for image in noisy]).numpy()
            network = networks[BUNDLES[modality]]
            blind = denoise_series(network, noisy, gated=True, modality=modality).slices.numpy()
            known = told(network, noisy, level, modality)
            line = f"{name:34} rim {255 * rim:2.0f} centre {255 * centre:2.0f} {noise.certainty:12}"
            signal = clean > 0.1 * np.quantile(clean, 0.98)
            levels = np.broadcast_to(level, clean.shape)
            near, far = np.quantile(levels[signal], [0.3, 0.7])
            weak, strong = signal & (levels <= near), signal & (levels >= far)
            for place, where in (("weak", weak), ("strong", strong), ("all", signal)):
                ratio = np.sqrt((found[where] ** 2).mean() / (levels[where] ** 2).mean())
                gains = [
                    10
                    * np.log10(
                        np.square(noisy.numpy() - clean)[where].mean()
                        / np.square(each - clean)[where].mean()
                    )
                    for each in (blind, known)
                ]
                line += f"  {place} {ratio:.2f} {gains[0]:+.2f} dB (told {gains[1]:+.2f})"
            print(line, flush=True)


if __name__ == "__main__":
    main()
