"""Whether the product makes any image worse, and whether it finds the level of the noise.

python -m bench.studies.never_worse [--data DATA] [--levels 1 2 3 4 6 15 25] [--no-images]
python -m bench.studies.never_worse --by-place [--data DATA]

Clean references of the shared data that trained no network (real slices are cleaned: pixels
averaged 2 x 2, then non-local means of their own noise), with white and correlated noise of known
level, through plan, network, gate and repeats of the application, blind. One row a case: level
found / true, gain in the foreground, the share of the correction that was applied. With --by-place
white noise of 5/255 at the rim and 20/255 at the centre, and the reverse: level and gain where it
is weak and where it is strong, and the gain of the same network and gate with the oracle map.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import torch
from skimage.restoration import denoise_nl_means, estimate_sigma

from bench.phantom.acquisition import Protocol, acquire
from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.app.datasets.development_data import Item, load_item, scale_to_unit
from stillscan.app.evaluation.blind_denoising import NETWORK_SCALE, denoise_series
from stillscan.models.bundle import load_bundle
from stillscan.models.denoisers.denoiser import Denoiser
from stillscan.models.noise import synthesis
from stillscan.models.noise.estimation import estimate_noise_profile
from stillscan.models.noise.profile import MAX_LAG, NoiseProfile, PlaceMap
from stillscan.models.training.dead_leaves import dead_leaves
from stillscan.operators.array_volume import array_volume
from stillscan.operators.denoising.denoise_series import denoise_block
from stillscan.operators.denoising.plan import NOT_CHECKED, plan_from, read_sample

KINDS = {"white": 0.0, "correlated 0.5 px": 0.5, "correlated 1.2 px": 1.2}
SLICES = 3
LEAST_NOISE = 0.006  # of the brightest: that images are cleaned of
OWN_NOISE = 0.015  # of the resampled volumes, whose noise is correlated: at most


def references(data: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield name, modality and clean slices on [0, 1]."""
    anomaly = data / "survey" / "anomaly"
    for patient, contrast in (("07", "T2"), ("07", "T1"), ("19", "T2")):
        with np.load(anomaly / f"ms_mni_patient{patient}.npz") as arrays:
            volume = arrays[contrast.lower()].astype(np.float32)
        means = np.stack([volume[:, :, z - 1 : z + 2].mean(2) for z in (60, 80, 100)])
        yield f"MS {patient} {contrast}", "MR", cleaned(_unit(means), OWN_NOISE)
    dev = data / "dev"
    for name, array in (
        ("ulf055T_and_3T_patient_6B", "hf_T1w"),
        ("ulf055T_and_3T_patient_6B", "hf_FLAIR"),
        ("mr_siemens_prisma_t1_sag", ""),
        ("mr_ge_artist_acr_t1", ""),
    ):
        slices = load_item(dev, Item(name, "mr", "test", array))
        yield name.removeprefix("mr_") + array, "MR", cleaned(_some(slices))
    with np.load(data / "survey" / "cine" / "sim_cine_SC-N-02_truth.npz") as arrays:
        yield "cine SC-N-02", "MR", cleaned(_unit(_some(arrays["clean"][0].astype(np.float32))))
    head = Protocol(slices=SLICES, first_mm=0.0, spacing_mm=18.0)
    yield "generated head", "MR", _unit(np.stack([each.truth for each in acquire(head, seed=11)]))
    rng = np.random.default_rng(7)
    yield "dead leaves", "MR", np.stack([dead_leaves(192, rng) for _ in range(SLICES)])
    for name in ("ct_toshiba_abdomen_slices", "ct_philips_chest_slices"):
        with np.load(data / "ct" / "arrays" / f"{name}.npz") as arrays:
            volume = arrays["hu"].astype(np.float32)
        yield name, "CT", cleaned(scale_to_unit(_some(volume), "ct"))
    yield "chest films", "DX", cleaned(load_item(dev, Item("cxr[20:24]", "xray", "test"))[:SLICES])
    leg = pydicom.dcmread(next((dev / "dicom" / "cr_fuji_leg_mono1_j2k").iterdir()))
    film = leg.pixel_array.astype(np.float32)
    film = film.max() - film
    yield "leg film", "CR", _unit(cleaned(_averaged(film[None])))


def _some(volume: np.ndarray) -> np.ndarray:
    """Slices spread over the middle of a volume."""
    count = len(volume)
    at = np.linspace(count * 0.25, count * 0.75, SLICES).astype(int).clip(0, count - 1)
    return volume[np.unique(at)]


def _unit(slices: np.ndarray) -> np.ndarray:
    return (slices / np.quantile(slices, 0.999)).astype(np.float32)


def _averaged(slices: np.ndarray) -> np.ndarray:
    rows, columns = (side // 2 for side in slices.shape[1:])
    return slices[:, : 2 * rows, : 2 * columns].reshape(-1, rows, 2, columns, 2).mean((2, 4))


def cleaned(slices: np.ndarray, sigma: float | None = None) -> np.ndarray:
    """The slices, averaged 2 x 2 where they are large, after non-local means of their own noise."""
    if min(slices.shape[1:]) > 400:
        slices = _averaged(slices)
    clean = []
    for image in slices:
        own = sigma or max(1.5 * float(estimate_sigma(image)), LEAST_NOISE)
        clean.append(denoise_nl_means(image, patch_size=5, patch_distance=8, h=own, sigma=own))
    return np.stack(clean).astype(np.float32)


def noisy_series(clean: np.ndarray, length: float, sigma: float, seed: int) -> torch.Tensor:
    """The slices with Gaussian noise everywhere, white or blurred by a Gaussian of `length` px."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.from_numpy(clean)
    if length == 0:
        return torch.stack([synthesis.add_gaussian(each, sigma, generator) for each in images])
    return torch.stack(
        [synthesis.add_correlated(each, sigma, length, generator) for each in images]
    )


def foreground_psnr(images: torch.Tensor, clean: np.ndarray) -> float:
    """PSNR in dB (peak 1) where the reference is above a tenth of its bright places."""
    signal = clean > 0.1 * np.quantile(clean, 0.98)
    return float(-10 * np.log10(np.square(images.numpy() - clean)[signal].mean()))


def by_place(modality: str, clean: np.ndarray, network: Denoiser, ends: tuple[int, int]) -> str:
    """Level found / true and gain in dB, where the noise is weak and where it is strong."""
    rows, columns = clean.shape[1:]
    y, x = np.mgrid[:rows, :columns]
    distance = np.hypot((y + 0.5) / rows * 2 - 1, (x + 0.5) / columns * 2 - 1)
    level = (ends[0] + (ends[1] - ends[0]) * np.exp(-((2 * distance) ** 2))) / 255
    white = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)).numpy()
    noisy = torch.from_numpy((clean + level * white).astype(np.float32))
    noise = estimate_noise_profile(list(noisy), signal_dependent=modality != "MR")
    found = torch.cat([noise.sigma_map(image[None, None])[:, 0] for image in noisy]).numpy()
    blind = denoise_series(network, noisy, gated=True, modality=modality).slices.numpy()
    typical = float(np.sqrt((level**2).mean()))
    true = replace(
        NoiseProfile(typical, (0.5,), (typical,), np.pad([[1.0]], MAX_LAG), "gaussian"),
        places=PlaceMap(level / typical, (0.5, 0.5), (1.0, 1.0)),
    )
    volume = array_volume(noisy.numpy(), modality, [None] * len(noisy))
    plan = plan_from(read_sample(volume), scaling=NETWORK_SCALE, noise=true)
    plan = replace(plan, noise_check=NOT_CHECKED, uneven=False)
    oracle = np.concatenate([denoise_block(network, each, plan).pixels for each in volume.blocks()])
    signal = clean > 0.1 * np.quantile(clean, 0.98)
    levels = np.broadcast_to(level, clean.shape)
    near, far = np.quantile(levels[signal], [0.3, 0.7])
    line: str = noise.certainty
    for place, where in (("weak", levels <= near), ("strong", levels >= far)):
        noise_, *errors = (
            np.square(each - clean)[signal & where].mean()
            for each in (noisy.numpy(), blind, oracle)
        )
        ratio = np.sqrt(np.square(found)[signal & where].mean() / noise_)
        gains = [10 * np.log10(noise_ / error) for error in errors]
        line += f"  {place} {ratio:.2f} {gains[0]:+.2f} dB (oracle {gains[1]:+.2f})"
    return line


def main() -> None:
    """Print one line a case and a summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("STILLSCAN_DATA"))
    parser.add_argument("--levels", type=float, nargs="+", default=[1, 2, 3, 4, 6, 15, 25])
    parser.add_argument("--no-images", action="store_true", help="levels alone")
    parser.add_argument("--by-place", action="store_true", help="noise that differs over the image")
    parser.add_argument("--only", default="", help="references whose name holds this")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name the data: --data DATA, or STILLSCAN_DATA")
    bundles = {"MR": "mr", "CT": "ct", "DX": "xray", "CR": "xray"}
    networks = {name: load_bundle(DEFAULT_BUNDLES / name).denoiser for name in ("mr", "ct", "xray")}
    ratios: list[float] = []
    gains: list[float] = []
    certainty: list[str] = []
    for name, modality, clean in references(arguments.data):
        if arguments.only not in name:
            continue
        if arguments.by_place:
            for ends in ((5, 20), (20, 5)):
                found_by_place = by_place(modality, clean, networks[bundles[modality]], ends)
                print(f"{name:34} rim {ends[0]:2} centre {ends[1]:2} {found_by_place}", flush=True)
            continue
        for kind, length in KINDS.items():
            for level in arguments.levels:
                sigma = level / 255
                noisy = noisy_series(clean, length, sigma, seed=int(level))
                profile = estimate_noise_profile(list(noisy), signal_dependent=modality != "MR")
                certainty.append(profile.certainty)
                line = f"{name:34} {kind:18} {level:4g}/255  {profile.certainty:12}"
                if profile.certainty != "not measured":
                    ratios.append(profile.sigma / sigma)
                    line += f" {ratios[-1]:5.2f} {profile.family:10}"
                if not arguments.no_images:
                    result = denoise_series(
                        networks[bundles[modality]], noisy, gated=True, modality=modality
                    )
                    before = foreground_psnr(noisy, clean)
                    gains.append(foreground_psnr(result.slices, clean) - before)
                    line += f"  {before:6.2f} dB {gains[-1]:+6.2f}"
                print(line, flush=True)
    if arguments.by_place:
        return
    found = np.array(ratios)
    within = ((found > 0.8) & (found < 1.25)).mean()
    print(
        f"{len(certainty)} cases, not measured {certainty.count('not measured')}, one witness "
        f"{certainty.count('one witness')}; of {len(found)} levels: within 1.25 of the truth "
        f"{within:.3f}, above 1.25 {(found > 1.25).sum()}, above 1.5 {(found > 1.5).sum()}"
    )
    if gains:
        worse = (np.array(gains) < -0.05).sum()
        print(
            f"gain {np.mean(gains):+.2f} dB in the mean, {worse} cases worse by over 0.05 dB, "
            f"worst {min(gains):+.2f}"
        )


if __name__ == "__main__":
    main()
