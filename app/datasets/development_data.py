"""Images for training and measuring the shipped students: real and procedural ones.

The real images are the project's development data (variable STILLSCAN_DATA), split by subject; they
are not part of the repository. `SPLIT` lists the use of each item; no subject has two uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
import torch
import torch.nn.functional as F
from jaxtyping import Float32
from PIL import Image as Picture
from torch import Tensor

from stillscan.models.training.dead_leaves import dead_leaves
from stillscan.models.training.noisy_examples import PATCH, TrainingImage
from stillscan.models.training.projection_noise import Kernel, noise_fields

Part = Literal["train", "validate", "test"]
Domain = Literal["mr", "xray", "ct"]
Slices = Float32[np.ndarray, "slice row column"]


@dataclass(frozen=True)
class Item:
    """One subject: path of its slices under `dev`, its domain and its use."""

    name: str
    domain: Domain
    part: Part
    array: str = ""  # name of the array in an .npz file


SPLIT = (
    Item("clean_t1_colin27_axial", "mr", "train", "data"),
    Item("ulf055T_and_3T_patient_6A", "mr", "train", "hf_FLAIR"),
    Item("ulf055T_and_3T_patient_6A", "mr", "train", "hf_T1w"),
    Item("mr_siemens_xa30_enhanced_t1", "mr", "train"),
    Item("mr_ge_hdxt_fruit_irspgr", "mr", "train"),
    Item("mr_siemens_sola_enhanced_acr_t1", "mr", "validate"),
    Item("ulf055T_and_3T_patient_6B", "mr", "test", "hf_FLAIR"),
    Item("ulf055T_and_3T_patient_6B", "mr", "test", "hf_T1w"),
    Item("mr_siemens_prisma_t1_sag", "mr", "test"),
    Item("cxr[0:16]", "xray", "train"),
    Item("cxr[16:20]", "xray", "validate"),
    Item("cxr[20:24]", "xray", "test"),
    Item("ct_ge_hispeed_head_tilt", "ct", "train"),
    Item("ct_chest_transfer_syntaxes/CTImage.dcm", "ct", "test"),
)
# of `ct`: name, whether it is DICOM, pixels in mm, own noise in HU after averaging
CT_TRAINING = (
    ("ct_siemens_chest_b40f", True, 0.8828, 6.0),
    ("ct_siemens_chest_slices", False, 0.8828, 9.0),
    ("ct_toshiba_head_vertex_slices", False, 0.527, 4.0),
)
SLAB = 3  # slices that are averaged
FIELDS = 4  # realisations of noise of each slice
DOMAIN_WEIGHT = {
    "mr": 0.32,
    "xray": 0.14,
    "ct": 0.04,
    "projections": 0.2,  # CT with noise of its own projections
}  # sampling weight of real images; the rest is procedural
LOWEST_OWN_SIGMA = {
    "mr": 0.0,
    "xray": 0.0,
    "ct": 1.0 / 255,
}  # CT is smoothed, so that its noise is underestimated
SCALES = (1.0, 0.75, 0.5, 0.3)  # 0.3: the sharp, coarse matrix of echo-planar imaging
SMALLEST = 54  # pixels
PROCEDURAL_IMAGES = 500
PROCEDURAL_SIZE = 192


def subjects(data: Path, part: Part, domain: Domain | None = None) -> Iterator[tuple[Item, Slices]]:
    """Yield the items of one part with their slices on [0, 1] (`scale_to_unit`)."""
    for item in SPLIT:
        if item.part == part and domain in (None, item.domain):
            yield item, load_item(data / "dev", item)


def load_item(dev: Path, item: Item) -> Slices:
    """Load all slices of an item, scaled to [0, 1] as the application scales a series."""
    if item.array:
        with np.load(dev / "arrays" / f"{item.name}.npz") as arrays:
            return scale_to_unit(arrays[item.array].astype(np.float32), item.domain)
    if item.name.startswith("cxr"):
        first, last = (int(n) for n in item.name[4:-1].split(":"))
        paths = sorted((dev / "cxr").glob("*.png"))[first:last]
        pictures = np.stack([np.asarray(Picture.open(path), np.float32) for path in paths])
        return (pictures / 1020).astype(np.float32)
    path = dev / "dicom" / item.name
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return scale_to_unit(np.concatenate([_modality_values(file) for file in files]), item.domain)


def _modality_values(file: Path) -> Slices:
    dataset = pydicom.dcmread(file)
    slope = float(dataset.get("RescaleSlope", 1) or 1)
    values = np.atleast_3d(dataset.pixel_array.astype(np.float32)) * slope
    values = values + float(dataset.get("RescaleIntercept", 0) or 0)
    return values.reshape(-1, dataset.Rows, dataset.Columns)


def scale_to_unit(values: Slices, domain: Domain) -> Slices:
    """Scale to [0, 1]: CT from -1024..3071 HU, others from 0 to the series' 99.9th percentile."""
    if domain == "ct":
        return ((np.clip(values, -1024, 3071) + 1024) / 4095).astype(np.float32)
    return (values / np.percentile(values, 99.9)).astype(np.float32)


def training_images(
    data: Path, seed: int, weights: Mapping[str, float] = DOMAIN_WEIGHT
) -> list[TrainingImage]:
    """Load the training images of the shipped students: real slices and procedural images.

    Args:
        data: folder with `dev` and `ct`.
        seed: of procedural images and noise of projections.
        weights: share of each domain, and of `projections`; without these no image is judged
            after the pass-through, which is for CT.
    """
    images = real_images(data, SCALES, weights)
    if "projections" in weights:
        images += projected_images(data / "ct", seed, weights["projections"])
    rng = np.random.default_rng(seed)
    share = (1 - sum(weights.values())) / PROCEDURAL_IMAGES
    for _ in range(PROCEDURAL_IMAGES):
        pixels = torch.from_numpy(dead_leaves(PROCEDURAL_SIZE, rng))
        images.append(TrainingImage(pixels, 0.0, share))
    if "projections" in weights:
        return images
    return [replace(image, unpassed=1.0) for image in images]


def projected_images(ct: Path, seed: int, weight: float) -> list[TrainingImage]:
    """Load CT slices, averaged to 256 x 256, each with noise that is made in its projections."""
    generator = torch.Generator().manual_seed(seed)
    averaged = []
    for name, is_dicom, pixel_mm, own_hu in CT_TRAINING:
        if is_dicom:
            files = sorted((ct / "dicom" / name).iterdir(), key=_position)
            slices = np.concatenate([_modality_values(file) for file in files])
            slices = slices.reshape(-1, SLAB, *slices.shape[1:]).mean(1)
        else:
            with np.load(ct / "arrays" / f"{name}.npz") as arrays:
                slices = arrays["hu"].astype(np.float32)
        halved = F.avg_pool2d(torch.from_numpy(slices).clamp(-1024, 3071), 2)
        averaged += [(hu, 2 * pixel_mm, own_hu) for hu in halved]
    images = []
    for hu, pixel_mm, own_hu in averaged:
        kernels = [Kernel.drawn(generator) for _ in range(FIELDS)]
        fields = noise_fields(hu, pixel_mm, kernels, generator)
        pixels = torch.from_numpy(scale_to_unit(hu.numpy(), "ct"))
        share = weight / len(averaged)
        images.append(TrainingImage(pixels, own_hu / 4095, share, fields, unpassed=0.0))
    return images


def _position(file: Path) -> float:
    return float(pydicom.dcmread(file, stop_before_pixels=True).ImagePositionPatient[2])


def real_images(
    data: Path, scales: Sequence[float], weights: Mapping[str, float] = DOMAIN_WEIGHT
) -> list[TrainingImage]:
    """Load the real slices of the training subjects at these scales, weighted by domain."""
    images = []
    by_domain: dict[str, list[TrainingImage]] = {domain: [] for domain in LOWEST_OWN_SIGMA}
    for item, slices in subjects(data, "train"):
        for pixels in torch.from_numpy(slices):
            copies = _scaled_copies(pixels, scales, LOWEST_OWN_SIGMA[item.domain])
            by_domain[item.domain] += list(copies)
    for domain, found in by_domain.items():
        share = weights.get(domain, 0.0) / len(found)
        images += [TrainingImage(i.pixels, i.own_sigma, share) for i in found if share]
    return images


def _scaled_copies(
    pixels: Tensor, scales: Sequence[float], lowest: float
) -> Iterator[TrainingImage]:
    """Yield the slice at full size and averaged down, which has less noise and finer detail."""
    if float(pixels.std()) < 0.01:
        return
    for scale in scales:
        size = [round(n * scale) for n in pixels.shape]
        if min(size) < SMALLEST:
            continue
        small = F.interpolate(pixels[None, None], size=size, mode="bilinear", antialias=True)[0, 0]
        margins = [n for side in reversed(size) for n in (0, max(0, PATCH - side))]
        yield TrainingImage(F.pad(small, margins), max(own_noise(small), lowest))


def own_noise(pixels: Tensor) -> float:
    """Estimate a slice's own noise: lower quartile of the local level over blocks with signal.

    The level of a block of 8x8 pixels is the standard deviation of its second mixed difference / 2.
    """
    difference = pixels[1:, 1:] - pixels[1:, :-1] - pixels[:-1, 1:] + pixels[:-1, :-1]
    variance = F.avg_pool2d((difference[None, None] / 2) ** 2, 8)[0, 0]
    mean = F.avg_pool2d(pixels[None, None, 1:, 1:], 8)[0, 0]
    levels = variance[mean > 0.05].sqrt()
    return float(levels.quantile(0.25)) if len(levels) else 0.0
