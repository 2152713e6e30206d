"""Transforms and evaluator of `configs/inference.yaml`, for MONAI's tools.

The network of a bundle takes planes, not images (`OneTensorStudent`). `NoisePlanesd` measures the
noise of an image and makes the planes; `QualityGated` runs the pipeline of `stillscan denoise` with
what the network answered, so that the pixels are those of the command line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor, nn

from stillscan.app.bundles.choice import NoBundleError, identity_method
from stillscan.app.library.functions import denoise_stack
from stillscan.app.library.images import StackedImage
from stillscan.app.library.nifti import stacked_voxels
from stillscan.app.settings import Strength, load_settings, with_choices
from stillscan.models.denoisers.denoiser import Estimate, Image
from stillscan.models.noise.profile import NoiseProfile
from stillscan.models.one_tensor import input_planes
from stillscan.operators.denoising.denoise_series import seeds_of
from stillscan.operators.denoising.intensity import without_padding
from stillscan.operators.denoising.plan import plan_from, read_sample
from stillscan.operators.errors import NothingToDoError, StillscanError
from stillscan.operators.volume import Volume

log = logging.getLogger("stillscan")

VOXELS, MODALITY = "stillscan_voxels", "stillscan_modality"  # in the metadata of the planes

Data = Mapping[Hashable, Any]
Inferer = Callable[[Tensor, nn.Module], Tensor]


class NoisePlanesd(MapTransform):  # type: ignore[misc]  # MONAI has no type information
    """Measures the noise of an image and makes the planes that the network takes.

    Input: [repeat, i, j, k] in modality units, one channel for each acquisition, as `LoadImaged`
    and `EnsureChannelFirstd` give it, with its affine. Output: [channel, row, column, slice], the
    channels of `stillscan.models.one_tensor.CHANNELS`; its metadata keep the voxels.

    Args:
        keys: of images.
        modality: DICOM Modality of images whose metadata do not state it (key `Modality`).
        modalities: those that the bundle is for; empty for any.
        multiple: divisor of rows and columns after padding (`OneTensorStudent.multiple`).
        allow_missing_keys: as in MONAI.

    Raises:
        StillscanError: if an image cannot be denoised.
    """

    def __init__(
        self,
        keys: str | Sequence[str],
        modality: str = "",
        modalities: Sequence[str] = (),
        multiple: int = 8,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.modality = modality
        self.modalities = tuple(modalities)
        self.multiple = multiple

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Replace the images by planes."""
        found = dict(data)
        for key in self.key_iterator(found):
            found[key] = self._planes(found[key])
        return found

    def _planes(self, image: MetaTensor) -> MetaTensor:
        modality = str(self.modality or image.meta.get("Modality") or "")
        if modality and self.modalities and modality not in self.modalities:
            known = ", ".join(self.modalities)
            raise NoBundleError(f"Modality is {modality}; the bundle is for {known}")
        voxels = torch.as_tensor(image.array, dtype=torch.float32).cpu()
        volume = _stacked(voxels, image).volume(modality)
        sample = read_sample(volume)
        plan = plan_from(sample)
        planes = []
        for block in replace(sample.volume, together=int(plan.uneven)).blocks():
            own = plan.for_slice(block) if plan.uneven else plan
            for each in own.scaling.to_network(without_padding(block.pixels, block.padding)):
                planes.append(input_planes(torch.from_numpy(each), own.noise, self.multiple))
        kept = {"affine": image.affine, VOXELS: voxels, MODALITY: modality}
        return MetaTensor(torch.stack(planes, -1), meta={**image.meta, **kept})


class QualityGated(MapTransform):  # type: ignore[misc]  # as above
    """Makes the denoised image of what the network answered, and judges it.

    Input: [2, row, column, slice], the channels of `stillscan.models.one_tensor.ESTIMATE`. Output:
    [repeat, i, j, k], float32, in the unit and the shape of the image that `NoisePlanesd` got.

    Args:
        keys: of what the network answered.
        image: key of its planes.
        strength: share of the noise to remove, as for `stillscan denoise`.
        noise_range: of the bundle; stronger noise is refused.
        uncertainty: key for the standard deviation of the error of the (last) image.
        allow_missing_keys: as in MONAI.

    Raises:
        StillscanError: if the image is refused.
    """

    def __init__(
        self,
        keys: str | Sequence[str],
        image: str = "image",
        strength: Strength | float = 1.0,
        noise_range: tuple[float, float] | None = None,
        uncertainty: str = "uncertainty",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image = image
        self.settings = with_choices(load_settings(), None, strength, None)
        self.noise_range = noise_range
        self.uncertainty = uncertainty

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Replace the answers by images."""
        found = dict(data)
        planes = found[self.image]
        image = _stacked(planes.meta[VOXELS], planes)
        volume = image.volume(planes.meta[MODALITY])
        control = identity_method(self.settings)
        for key in self.key_iterator(found):
            answered = torch.as_tensor(found[key]).float().cpu()
            method = replace(
                control,
                denoiser=_Answered(answered, volume),
                strength=self.settings.denoise.share,
                noise_range=self.noise_range,
            )
            result = denoise_stack(image, volume, method)
            for warning in result.outcomes[0].warnings:
                log.warning("%s", warning)
            found[key] = _like(planes, result.image)
            found[self.uncertainty] = _like(planes, result.uncertainty)
        return found


@dataclass(frozen=True)
class _Answered:
    """A denoiser that returns what the network has answered for the slices of a volume."""

    planes: Tensor  # [2, row, column, slice]
    volume: Volume
    chosen: tuple[int, ...] = ()

    def seeded(self, seeds: Sequence[int]) -> _Answered:
        """Choose slices by their seeds, which no other slice has."""
        known = seeds_of(self.volume.read(0, len(self.volume.slices)))
        return replace(self, chosen=tuple(known.index(seed) for seed in seeds))

    def denoise(self, image: Image, noise: NoiseProfile) -> Estimate:
        """Return the answers for the chosen slices."""
        height, width = image.shape[-2:]
        mean, spread = self.planes[:, :height, :width, list(self.chosen)].moveaxis(-1, 1)
        return Estimate(mean=mean[:, None], spread=spread[:, None])


@dataclass
class SeriesEvaluator:
    """Denoises the images of a dataset; one that is refused is logged and left out.

    Args:
        dataset: of MONAI, whose transform makes planes.
        network: the network of `configs/inference.yaml`.
        inferer: applies it to the planes.
        postprocessing: makes images of its answers, and saves them.
        device: torch device of the network.
    """

    dataset: Sequence[Data]
    network: nn.Module
    inferer: Inferer
    postprocessing: Callable[[Data], Data]
    device: torch.device | str = "cpu"
    refused: list[StillscanError] = field(default_factory=list)

    def run(self) -> int:
        """Denoise every image and return how many are done.

        Raises:
            NothingToDoError: if there is none.
        """
        done = 0
        for number in range(len(self.dataset)):
            try:
                item = dict(self.dataset[number])
                with torch.inference_mode():
                    item["pred"] = self.inferer(item["image"][None].to(self.device), self.network)
                self.postprocessing({**item, "pred": item["pred"][0]})
                done += 1
            except RuntimeError as error:  # MONAI raises it from the error of a transform
                cause = _refusal(error)
                if cause is None:
                    raise
                log.warning("not used (%s): %s", cause.reason, cause)
                self.refused.append(cause)
        if not done:
            raise NothingToDoError("no image of the dataset can be denoised")
        return done


def images_in(folder: str | Path) -> list[dict[str, str]]:
    """Return the NIfTI files of a folder and the folders below it, as the items of a dataset."""
    return [{"image": str(path)} for path in sorted(Path(folder).rglob("*.nii*"))]


def _stacked(voxels: Tensor, image: MetaTensor) -> StackedImage:
    affine = np.asarray(image.affine, float)
    across, down = np.linalg.norm(affine[:3, :2], axis=0).tolist()
    # the SDK's affine has the spacing of rows and columns exchanged, its metadata have not
    down = float(image.meta.get("row_pixel_spacing", down))
    across = float(image.meta.get("col_pixel_spacing", across))
    return stacked_voxels(np.moveaxis(voxels.numpy(), 0, -1), affine, (down, across))


def _like(planes: MetaTensor, values: np.ndarray) -> MetaTensor:
    own = (VOXELS, MODALITY)
    meta = {key: value for key, value in planes.meta.items() if key not in own}
    image = torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, -1, 0)))
    return MetaTensor(image, meta=meta)


def _refusal(error: BaseException | None) -> StillscanError | None:
    """Return the refusal that an error of MONAI was raised from."""
    while error is not None and not isinstance(error, StillscanError):
        error = error.__cause__
    return error
