"""What stays of faint structures and how much noise goes: ours by setting, NLM, BM3D, in one run.

python -m bench.studies.low_contrast [--data DATA] [--part validate] [--weights FILE ...]
    [--mm 1.5 2 ...] [--strength 1 0.9 ...] [--peers] [--only ct mr xray]

Blind, through plan, network, pass-through and gate. One row a method:

- *phantom*: the simulated low-contrast phantom, discs inserted at eight angles (FDA's LCD approach,
  Vaishnav et al. 2014, with the MITA phantom); d' of a channelised Hotelling observer, and with
  internal noise of as much variance as the source's noise has in each channel.
- *body*: soft tissue of a real CT with noise made in its projections, three noises; discs of 5 and
  9 px at visibilities v of 2 to 8.
- *rod*: frequency at which the transfer of an inserted rod of 20, 200 and 1000 HU falls to half.
- *MR*, *radiographs*: `app/evaluation/lesions.py` in anatomy, white and correlated noise.

`kept`: at least half of the contrast is there. `--part validate` uses subjects that the setting may
be chosen on; `test` others.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from bench.studies.never_worse import cleaned, foreground_psnr, references
from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.app.datasets.development_data import Item, load_item
from stillscan.app.evaluation import lesions, low_contrast
from stillscan.app.evaluation.blind_denoising import denoise_series
from stillscan.app.evaluation.noise_cases import NoiseCase, noise_case
from stillscan.app.evaluation.peers import SliceBySlice, bm3d_oracle, is_installed, nlm
from stillscan.models.bundle import load_bundle
from stillscan.models.denoisers.denoiser import Denoiser
from stillscan.models.denoisers.student import StudentDenoiser
from stillscan.models.metrics.detectability import (
    laguerre_gauss,
    paired_detectability,
    readings,
)
from stillscan.models.metrics.noise_power import mean_frequency
from stillscan.models.networks.student import StudentNetwork
from stillscan.models.training.projection_noise import Kernel, noise_fields
from stillscan.operators.denoising import pass_through

HU = 1 / 4095
FLAT = slice(100, 156)  # rows and columns of the flat middle of the phantom
DIAMETERS = (5, 9)  # pixels
VISIBILITIES = (2.0, 3.5, 5.0, 8.0)
NOISES = (("soft", 12), ("soft", 25), ("sharp", 25))  # HU
RODS = (20, 200, 1000)  # HU
ROD_RADIUS, ROD_BLUR = 10.0, 0.72  # pixels; the blur falls to half at 0.26 cycles per pixel
CASES = ("gaussian 6", "gaussian 15", "correlated 1.2 px 15")
SUBJECTS = {
    "validate": ("MS 19 T2", "generated head", "dead leaves", "ge_artist_acr_t1"),
    "test": ("MS 07 T2", "ulf055T_and_3T_patient_6Bhf_T1w", "siemens_prisma_t1_sag"),
}
FILMS = {"validate": "cxr[16:20]", "test": "cxr[20:24]"}

Denoise = Callable[[torch.Tensor, str, NoiseCase | None], torch.Tensor]


@dataclass(frozen=True)
class Body:
    """Real CT slices, their noise of unit deviation, and places for discs in soft tissue.

    Attributes:
        base: slices on the network's scale, each twice.
        noise: by kernel, two realisations for each slice in turn.
        places: rows and columns by image.
        pixel_mm: size of a pixel.
    """

    base: torch.Tensor
    noise: dict[str, torch.Tensor]
    places: list[list[tuple[int, int]]]


def main() -> None:
    """Print the rows of all methods and settings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("STILLSCAN_DATA"))
    parser.add_argument("--part", choices=SUBJECTS, default="test")
    parser.add_argument("--weights", type=Path, nargs="*", default=[])
    parser.add_argument("--mm", type=float, nargs="+", default=[pass_through.SCALE_MM["CT"]])
    parser.add_argument("--strength", type=float, nargs="+", default=[1.0])
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--only", nargs="+", default=["ct", "mr", "xray"])
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name the data: --data DATA, or STILLSCAN_DATA")
    body = load_body(arguments.data, arguments.part) if "ct" in arguments.only else None
    for name, denoise, domains in methods(arguments):
        if body is not None and "ct" in domains:
            lines = [*phantom(denoise, arguments.data), *in_body(denoise, body)]
            for line in [*lines, rods(denoise, arguments.data)]:
                print(f"{name} | {line}", flush=True)
        for domain in ("mr", "xray"):
            if domain in domains and domain in arguments.only:
                for case in CASES:
                    subjects = anatomy(arguments.data, arguments.part, domain)
                    print(f"{name} | {in_anatomy(denoise, domain, subjects, case)}", flush=True)


def methods(arguments: argparse.Namespace) -> Iterator[tuple[str, Denoise, tuple[str, ...]]]:
    """Yield a name, a function and the domains that it is for."""
    every = ("ct", "mr", "xray")
    chosen: list[tuple[Path, tuple[str, ...]]] = [(each, every) for each in arguments.weights]
    shipped = [(DEFAULT_BUNDLES / domain, (domain,)) for domain in every]
    for weights, domains in chosen or shipped:
        denoiser = student(weights)
        for strength in arguments.strength:
            name = f"{weights.stem}, strength {strength:g}"
            yield name, ours(denoiser, 0.0, strength), tuple({"mr", "xray"} & {*domains})
            for scale in arguments.mm:
                for_ct = tuple({"ct"} & {*domains})
                yield f"{name}, {scale:g} mm", ours(denoiser, scale, strength), for_ct
    if arguments.peers:
        yield "unchanged", lambda noisy, modality, case: noisy, every
        yield "NLM", lambda noisy, modality, case: _by_slice(SliceBySlice(nlm), noisy), every
        if is_installed("bm3d"):
            yield "BM3D (oracle noise)", _bm3d, every


def student(weights: Path) -> Denoiser:
    """Load the student of a bundle, or the averaged weights of a training's checkpoint."""
    denoiser = load_bundle(weights if weights.is_dir() else DEFAULT_BUNDLES / "mr").denoiser
    if weights.is_dir():
        return denoiser
    average = torch.load(weights, weights_only=True)["average"]
    layers = ("encoders.0.first", "encoders.1.first", "middle.0.first")
    network = StudentNetwork(tuple(len(average[f"body.{layer}.bias"]) for layer in layers))
    network.load_state_dict(average)
    return StudentDenoiser(network)


def ours(denoiser: Denoiser, scale_mm: float, strength: float) -> Denoise:
    """The application's pipeline with one setting of the pass-through in CT; 0: without it."""

    def denoise(noisy: torch.Tensor, modality: str, case: NoiseCase | None) -> torch.Tensor:
        scales = {modality: scale_mm} if scale_mm else {}
        with patch.object(pass_through, "SCALE_MM", scales):
            result = denoise_series(
                denoiser, noisy, gated=True, modality=modality, strength=strength
            )
        return result.slices

    return denoise


def _by_slice(denoiser: Denoiser, noisy: torch.Tensor) -> torch.Tensor:
    profile = noise_case("gaussian 15").profile(noisy)  # not looked at
    return denoiser.denoise(noisy[:, None], profile).mean[:, 0]


def _bm3d(noisy: torch.Tensor, modality: str, case: NoiseCase | None) -> torch.Tensor:
    oracle = None if case is None else bm3d_oracle(case)
    return noisy if oracle is None else _by_slice(oracle, noisy)


def phantom(denoise: Denoise, data: Path) -> Iterator[str]:
    """Measure each dose: d' by source, noise taken, contrast kept by each disc, bias."""
    for dose in low_contrast.doses(data):
        absent, present = dose.absent, low_contrast.with_discs(dose.absent)
        shown = denoise(absent, "CT", None)
        with_it = torch.cat(
            [denoise(each, "CT", None) for each in torch.split(present, len(absent))]
        )
        before, after = (
            float((each - each.mean(0))[:, FLAT, FLAT].std()) for each in (absent, shown)
        )
        found = [
            low_contrast.inserted(with_it, shown, like).mean
            / low_contrast.inserted(present, absent, like).mean
            for like in (None, absent)
        ]
        kept = " / ".join(f"{each:.2f}" for each in low_contrast.kept_contrast(with_it, shown))
        bias = float((shown - absent)[:, FLAT, FLAT].mean()) / HU
        yield (
            f"phantom {dose.percent} % | d' {found[0]:.2f}, with internal noise {found[1]:.2f} of "
            f"the source's | noise -{100 * (1 - after / before):.0f} % | share {kept} | bias "
            f"{bias:+.2f} HU"
        )


def load_body(data: Path, part: str) -> Body:
    """Load the liver (test), or the chest of another subject with projection noise (validate)."""
    arrays = data / "ct" / "arrays"
    if part == "test":
        with np.load(arrays / "ct_liver_low_contrast_SIMULATED.npz") as liver:
            base = torch.from_numpy(liver["base"].astype(np.float32))
            noise = {
                kind: torch.from_numpy(liver[f"noise_{kind}"].astype(np.float32))
                for kind in ("soft", "sharp")
            }
            places = [[(int(r), int(c)) for r, c in each if r >= 0] for each in liver["places"]]
    else:
        generator = torch.Generator().manual_seed(0)
        middle = slice(120, 392)
        with np.load(arrays / "ct_philips_chest_slices.npz") as chest:
            whole = torch.from_numpy(chest["hu"][5:11:2].astype(np.float32))
        kernels = [Kernel(0.28), Kernel(0.28), Kernel(0.4, 4.0), Kernel(0.4, 4.0)]
        fields = [noise_fields(hu, 0.78125, kernels, generator) for hu in whole]
        fields = [each[:, middle, middle] for each in fields]
        noise = {
            "soft": torch.cat([each[:2] for each in fields]),
            "sharp": torch.cat([each[2:] for each in fields]),
        }
        base = whole[:, middle, middle]
        places = [_soft_tissue(hu) for hu in base]
    return Body((base.repeat_interleave(2, 0) + 1024) * HU, noise, places)


def _soft_tissue(hu: torch.Tensor) -> list[tuple[int, int]]:
    """Places of even soft tissue, 24 pixels apart."""
    found = []
    for row in range(24, len(hu) - 24, 24):
        for column in range(24, len(hu) - 24, 24):
            part = hu[row - 9 : row + 10, column - 9 : column + 10]
            if -50 < float(part.mean()) < 250 and float(part.std()) < 30:
                found.append((row, column))
    return found


def in_body(denoise: Denoise, body: Body) -> Iterator[str]:
    """Measure each noise: least d' over the visibilities, discs kept, noise, its frequency."""
    images = [i for i in range(len(body.base)) for _ in body.places[i // 2]]
    places = [place for i in range(len(body.base)) for place in body.places[i // 2]]
    pairwise = [i ^ 1 for i in range(len(body.base))]
    for kind, level in NOISES:
        noise = level * HU * body.noise[kind]
        noisy = body.base + noise
        shown = denoise(noisy, "CT", None)
        ratios, kept = [], {}
        for visibility in VISIBILITIES:
            with_discs = noisy.clone()
            shares = []
            for diameter in DIAMETERS:
                some = [k for k in range(len(places)) if DIAMETERS[k % 2] == diameter]
                shape = lesions.disc(diameter)
                template = shape - shape.mean()
                cut = len(shape)
                responses = [(_at(noise[images[k]], places[k], cut) * template).sum() for k in some]
                spread = float(torch.stack(responses).square().mean().sqrt())
                contrast = visibility * spread / float((shape * template).sum())
                for k in some:
                    part = _at(with_discs[images[k]], places[k], cut)
                    part += contrast * shape  # a view
            result = denoise(with_discs, "CT", None)
            for diameter in DIAMETERS:
                some = [k for k in range(len(places)) if DIAMETERS[k % 2] == diameter]
                shape = lesions.disc(diameter)
                channels = laguerre_gauss(len(shape), 1.5 * diameter)
                pairs = [
                    [_cut(each, images, places, some, len(shape)) for each in pair]
                    for pair in ((result, shown), (with_discs, noisy))
                ]
                found, source = (
                    paired_detectability(*(readings(each, channels) for each in pair))
                    for pair in pairs
                )
                ratios.append(found / source)
                template = shape - shape.mean()
                through, whole = (((a - b) * template).sum((1, 2)) for a, b in pairs)
                shares.append(through / whole)
            kept[visibility] = float((torch.cat(shares) >= 0.5).float().mean())
        before, after = (
            _cut(each - each[pairwise], images, places, range(len(places)), 17)
            for each in (noisy, shown)
        )
        frequency = [float(np.mean([mean_frequency(p) for p in each])) for each in (before, after)]
        yield (
            f"body {kind} {level} HU | d' {min(ratios):.2f} | noise "
            f"-{100 * (1 - float(after.std() / before.std())):.0f} % | kept "
            + ", ".join(f"{100 * share:.0f} % at v {v:g}" for v, share in kept.items())
            + f" | mean frequency {frequency[0]:.2f} -> {frequency[1]:.2f} | bias "
            f"{float((shown - noisy)[noisy > 900 * HU].mean()) / HU:+.2f} HU"
        )


def _cut(
    planes: torch.Tensor,
    images: list[int],
    places: list[tuple[int, int]],
    some: Iterable[int],
    side: int,
) -> torch.Tensor:
    return torch.stack([_at(planes[images[k]], places[k], side) for k in some])


def _at(plane: torch.Tensor, place: tuple[int, int], side: int) -> torch.Tensor:
    top, left = place[0] - side // 2, place[1] - side // 2
    return plane[top : top + side, left : left + side]


def rods(denoise: Denoise, data: Path) -> str:
    """Measure the frequency in cycles per pixel at which the transfer of a rod falls to half."""
    absent = list(low_contrast.doses(data))[-1].absent
    side = 41
    axis = torch.arange(side) - float(side // 2)
    distance = torch.hypot(axis[:, None], axis[None, :])
    sharp = (ROD_RADIUS + 0.5 - distance).clamp(0, 1)
    rule = pass_through.PassThrough(0.0, (ROD_BLUR, ROD_BLUR))
    rod = rule.smoothed(sharp[None])[0]
    centres = [(128 + dy, 128 + dx) for dy in (-45, 0, 45) for dx in (-45, 0, 45)]
    shown = denoise(absent, "CT", None)
    found = []
    for contrast in RODS:
        with_rods = absent.clone()
        for place in centres:
            for image in with_rods:
                part = _at(image, place, side)
                part += contrast * HU * rod  # a view
        change = denoise(with_rods, "CT", None) - shown
        parts = [_at(image, place, side) for image in change for place in centres]
        found.append(_half_transfer(torch.stack(parts).mean(0), distance))
    source = _half_transfer(rod, distance)
    values = " / ".join(f"{each:.3f}" for each in found)
    return f"rods of {' / '.join(map(str, RODS))} HU | f50 {values} cycles/px, source {source:.3f}"


def _half_transfer(rod: torch.Tensor, distance: torch.Tensor) -> float:
    """Transfer by the radial edge: half a pixel wide bins, differentiated, Fourier transformed."""
    step, around = 0.5, 12
    bins = (distance / step).round().long()
    middle = int(ROD_RADIUS / step)
    edge = torch.stack([rod[bins == k].mean() for k in range(middle - around, middle + around + 1)])
    line = -torch.diff(edge)
    line = line * torch.hann_window(len(line), periodic=False)
    frequency = torch.arange(0.01, 0.5, 0.002)
    phase = 2 * math.pi * frequency[:, None] * step * torch.arange(len(line))
    transfer = torch.hypot((line * phase.cos()).sum(1), (line * phase.sin()).sum(1)) / line.sum()
    below = (transfer < 0.5).nonzero()
    return float(frequency[below[0, 0]]) if len(below) else 0.5


def anatomy(data: Path, part: str, domain: str) -> list[torch.Tensor]:
    """Load clean slices of each subject of MR, or films."""
    if domain == "xray":
        films = load_item(data / "dev", Item(FILMS[part], "xray", "test"))
        return [torch.from_numpy(cleaned(films[:3]))]
    return [
        torch.from_numpy(clean) for name, _, clean in references(data) if name in SUBJECTS[part]
    ]


def in_anatomy(denoise: Denoise, domain: str, subjects: list[torch.Tensor], name: str) -> str:
    """Insert lesions in anatomy: gain in the foreground, lesions kept by visibility, invented."""
    case = noise_case(name)
    modality = "MR" if domain == "mr" else "DX"
    gains: list[float] = []
    found: list[lesions.Reading] = []
    empty = invented = 0
    for seed, clean in enumerate(subjects):
        generator = torch.Generator().manual_seed(seed)
        noise = torch.stack([case.add(each, generator) - each for each in clean])
        drawn = [lesions.draw_lesions(each, case, generator) for each in clean]
        with_them = [lesions.insert(*each) for each in zip(clean, drawn, strict=True)]
        shown = denoise(clean + noise, modality, case)
        result = denoise(torch.stack(with_them) + noise, modality, case)
        gains.append(
            foreground_psnr(shown, clean.numpy()) - foreground_psnr(clean + noise, clean.numpy())
        )
        for index, each in enumerate(drawn):
            found += lesions.read_lesions(result[index], shown[index], each)
            places = lesions.read_places(shown[index], clean[index], case)
            empty, invented = empty + places.empty, invented + places.invented
    kept = []
    for low, high in ((3.0, 5.0), (5.0, 8.0), (8.0, math.inf)):
        some = [each.kept for each in found if low <= each.visibility < high]
        kept.append(f"v {low:g} to {high:g}: {100 * np.mean(some):.0f} % of {len(some)}")
    return (
        f"{domain} {name} | {np.mean(gains):+.2f} dB ("
        + ", ".join(f"{each:+.1f}" for each in gains)
        + f") | kept {', '.join(kept)} | invented {100 * invented / max(empty, 1):.2f} %"
    )


if __name__ == "__main__":
    main()
