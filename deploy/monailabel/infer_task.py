"""MONAI Label's inference task: returns a denoised image with the geometry of the input image.

The result is an image of floats, not a label: nothing is resampled, so nothing has to be restored,
and nothing is made discrete, whatever type of label the client asks for (3D Slicer and OHIF send
`result_dtype: uint8` with every request).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from monai.transforms import LoadImage
from monailabel.interfaces.tasks.infer_v2 import InferType
from monailabel.tasks.infer.basic_infer import BasicInferTask

from stillscan.app.bundles.choice import bundle_for
from stillscan.app.library.nifti import stacked_voxels
from stillscan.app.settings import Settings
from stillscan.deploy.monailabel.denoise_series import DenoisedSeries, Stack, denoise_series
from stillscan.deploy.monailabel.dicom_volume import read_volumes
from stillscan.deploy.monailabel.errors import NotStoredError
from stillscan.deploy.monailabel.image_volume import NIFTI, suffix_of
from stillscan.deploy.monailabel.networks import (
    MODES,
    STRENGTHS,
    Networks,
    Wish,
    modality_of,
    wants,
)
from stillscan.models.bundle import BundleInfo
from stillscan.operators.errors import NotOneVolumeError
from stillscan.operators.geometry import Affine
from stillscan.operators.graph.messages import Method
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.volume import Volume

Store = Callable[[Sequence[Path]], None]  # stores DICOM files in the server of the images


@dataclass(frozen=True)
class Denoising:
    """Settings that all inference tasks of the app share.

    Attributes:
        bundles: bundles for the choice by modality.
        store: None if the images do not come from a DICOMweb server.
    """

    settings: Settings
    networks: Networks
    bundles: tuple[BundleInfo, ...]
    store: Store | None = None


class DenoiseTask(BasicInferTask):  # type: ignore[misc]
    """Denoises with a given bundle, or with the one for the modality."""

    def __init__(self, shared: Denoising, bundle: BundleInfo | None = None) -> None:
        """`bundle` None: chosen by the modality of the image."""
        what = "the bundle of its modality" if bundle is None else f"bundle {bundle.name}"
        super().__init__(
            path=None,
            network=None,
            type=InferType.OTHERS,
            labels=None,
            dimension=3,
            description=f"Stillscan: less noise, by {what}; the result is an image, no label",
            config={
                "strength": list(STRENGTHS),
                "mode": list(MODES),
                "maps": False,
                "store": False,
            },
        )
        self._shared = shared
        self._bundle = bundle

    def is_valid(self) -> bool:
        """True: networks are loaded from bundles, not from `path`."""
        return True

    def pre_transforms(self, data: dict[str, Any] | None = None) -> list[Callable[..., Any]]:
        """No transforms: a DICOM series is read block by block while it is denoised."""
        return []

    def run_inferer(
        self, data: dict[str, Any], convert_to_batch: bool = True, device: str = "cpu"
    ) -> dict[str, Any]:
        """Denoise; the result is in `pred` with its affine in `pred_meta_dict`."""
        wish = Wish.of({**data, "device": device})
        folder = dicom_folder(data)
        if folder is None:
            found = self._denoise_file(data, wish)
        else:
            found = self._denoise_series(folder, data, wish)
        return {**data, **found}

    def post_transforms(self, data: dict[str, Any] | None = None) -> list[Callable[..., Any]]:
        """No transforms: the result already has the geometry of the image."""
        return []

    def writer(
        self, data: dict[str, Any], extension: str | None = None, dtype: Any = None
    ) -> tuple[str | None, dict[str, Any]]:
        """Write the image as float32; `dtype` and `result_dtype` are for labels, and ignored."""
        image, meta = data[self.output_label_key], data[f"{self.output_label_key}_meta_dict"]
        result = data[self.output_json_key]
        if image is None:
            return None, result
        wanted = extension or data.get("result_extension") or meta["suffix"]
        handle, path = tempfile.mkstemp(suffix=suffix_of(f"image{wanted}"))
        os.close(handle)
        if path.endswith(NIFTI):
            nibabel.save(_nifti(image, meta), path)
        else:
            _write_itk(image, meta, path, bool(data.get("result_compress", True)))
        return path, result

    def _denoise_file(self, data: Mapping[str, Any], wish: Wish) -> dict[str, Any]:
        """Denoise a NIfTI, NRRD or MetaImage file."""
        if wants(data, "store"):
            raise NotStoredError(
                "store: the image is a file without a DICOM header, nothing can be derived from it"
            )
        path = str(data["image"])
        suffix = suffix_of(path)
        reader = "NibabelReader" if suffix in NIFTI else "ITKReader"
        image = LoadImage(reader=reader, image_only=True, dtype=np.float32)(path)
        affine = np.asarray(image.affine, np.float64)
        across, down = np.linalg.norm(affine[:3, :2], axis=0).tolist()
        voxels = stacked_voxels(image.numpy(), affine, (down, across))
        volume = voxels.volume(modality_of(data, self._bundle))
        denoised = denoise_series(volume, self._method(volume, wish))
        like = path if suffix in NIFTI else None
        meta = {"affine": affine, "suffix": suffix, "like": like}
        return self._found(data, [denoised], meta, voxels.restore)

    def _denoise_series(self, folder: Path, data: Mapping[str, Any], wish: Wish) -> dict[str, Any]:
        """Denoise a DICOM series; with `store`, store the derived series in the DICOMweb server."""
        stored = wants(data, "store")
        store = self._shared.store
        if stored and store is None:
            raise NotStoredError(
                "store: the images of this server do not come from a DICOMweb server"
            )
        options = self._shared.settings.output.series
        with Decoder() as decoder, tempfile.TemporaryDirectory() as staging:
            volumes = read_volumes(folder, decoder, self._shared.settings.selection)
            affine = None if stored else _viewers_affine(volumes)  # refused before the work
            denoised = []
            for number, volume in enumerate(volumes):
                place = Path(staging) / str(number) if stored else None
                if place is not None:
                    place.mkdir()
                denoised.append(denoise_series(volume, self._method(volume, wish), place, options))
            if store is not None and stored:
                store(sorted(Path(staging).rglob("*.dcm")))
        for each in denoised:
            if each.derived is not None:
                each.facts["derived_series_instance_uid"] = each.derived.series_instance_uid
        try:
            affine = _viewers_affine(volumes) if affine is None else affine
        except NotOneVolumeError:  # the viewer finds it in the PACS
            return self._found(data, denoised, None)
        return self._found(data, denoised, {"affine": affine, "suffix": ".nii.gz", "like": None})

    def _found(
        self,
        data: Mapping[str, Any],
        denoised: Sequence[DenoisedSeries],
        meta: dict[str, Any] | None,
        restore: Callable[[Stack], np.ndarray] = lambda stack: stack.transpose(2, 1, 0),
    ) -> dict[str, Any]:
        """Return the image of all volumes, with its maps as further components if asked for."""
        facts = denoised[0].facts
        if len(denoised) > 1:
            facts = {**facts, "images": [each.facts for each in denoised]}
        image = None
        if meta is not None:
            kinds = ("pixels", "noise", "uncertainty") if wants(data, "maps") else ("pixels",)
            stacks = [np.concatenate([getattr(each, kind) for each in denoised]) for kind in kinds]
            images = [restore(stack) for stack in stacks]
            image = np.stack(images, -1) if len(images) > 1 else images[0]
        return {
            self.output_label_key: image,
            f"{self.output_label_key}_meta_dict": {**(meta or {}), "maps": wants(data, "maps")},
            self.output_json_key: facts,
        }

    def _method(self, volume: Volume, wish: Wish) -> Method:
        bundle = self._bundle or bundle_for(volume.modality, self._shared.bundles)
        return self._shared.networks.method(bundle, volume.modality, wish)


def dicom_folder(request: Mapping[str, Any]) -> Path | None:
    """Folder of the DICOM series of a request: its image, or the source of the converted image."""
    for value in (request.get("dicom"), request.get("image")):
        if value and (Path(value).is_dir() or str(value).lower().endswith(".dcm")):
            return Path(value)
    return None


def _viewers_affine(volumes: Sequence[Volume]) -> Affine:
    """The affine of a series; of radiographs, which have none, pixel spacing and number.

    Raises:
        NotOneVolumeError: if it has none; the message suggests to request the derived series.
    """
    first = volumes[0]
    if len(volumes) > 1 and len({(each.rows, each.columns) for each in volumes}) == 1:
        down, across = first.slices[0].plane.spacing_mm or (1.0, 1.0)
        return np.diag([-across, -down, 1.0, 1.0])
    try:
        if len(volumes) > 1:
            raise NotOneVolumeError("the radiographs of the series differ in Rows or Columns")
        return first.affine_ras
    except NotOneVolumeError as error:
        raise NotOneVolumeError(f"{error}; ask for the derived series instead (store)") from error


def _nifti(image: np.ndarray, meta: Mapping[str, Any]) -> nibabel.Nifti1Image:
    """Make a NIfTI image, with the header of the source if that was NIfTI.

    Maps are further components: NIfTI has them on its fifth axis.
    """
    if meta["maps"]:
        image = image.reshape((*image.shape[:-1], 1, 1)[:4] + image.shape[-1:])
    if meta["like"] is None:
        result = nibabel.Nifti1Image(image, meta["affine"])
    else:
        source = nibabel.load(meta["like"])
        result = nibabel.Nifti1Image(image, source.affine, source.header)
        result.set_data_dtype(np.float32)
        result.header.set_slope_inter(1, 0)
    if meta["maps"]:
        result.header.set_intent("vector")
    return result


def _write_itk(image: np.ndarray, meta: Mapping[str, Any], path: str, compress: bool) -> None:
    """Write NRRD or MetaImage; maps are further components of each voxel."""
    axes = image.ndim - 1 if meta["maps"] else image.ndim
    turned = image.transpose(*reversed(range(axes)), *range(axes, image.ndim))
    result = SimpleITK.GetImageFromArray(np.ascontiguousarray(turned), isVector=meta["maps"])
    if axes == 3:
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(meta["affine"], float)
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        result.SetSpacing(spacing.tolist())
        result.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
        result.SetOrigin(lps[:3, 3].tolist())
    SimpleITK.WriteImage(result, path, useCompression=compress)
