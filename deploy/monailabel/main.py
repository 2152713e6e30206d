"""The app that `monailabel start_server --app deploy/monailabel` starts.

Models: `stillscan` uses the bundle for the image's modality, `stillscan_<bundle>` a given one.
Configuration (`--conf KEY VALUE`): `models` a folder of bundles, `settings` a settings file.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from fastapi import HTTPException
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore

from stillscan import __version__
from stillscan.app.bundles.choice import DEFAULT_BUNDLES, available_bundles
from stillscan.app.settings import DEFAULT_SETTINGS, load_settings
from stillscan.deploy.monailabel.datastores import image_file, is_series, store_instances
from stillscan.deploy.monailabel.infer_task import DenoiseTask, Denoising
from stillscan.deploy.monailabel.networks import Networks
from stillscan.deploy.monailabel.train_task import ThreeStageTask
from stillscan.models.bundle import find_bundles
from stillscan.operators.errors import StillscanError

MODEL = "stillscan"
LABEL_TAG = "denoised"  # saved results must not count as labels
UNPROCESSABLE = 422  # HTTP status if an image is refused


class MyApp(MONAILabelApp):  # type: ignore[misc]
    """Denoising and its training for MONAI Label's clients."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        """Initialise the app as MONAI Label starts it."""
        settings = load_settings(Path(conf.get("settings", DEFAULT_SETTINGS)))
        bundles = available_bundles(Path(conf.get("models", DEFAULT_BUNDLES)), None)
        self._settings, self._bundles = settings, {each.name: each for each in bundles}
        self._trained = Path(app_dir) / "model"
        super().__init__(
            app_dir,
            studies,
            conf,
            name="Stillscan",
            description="Denoises MR, CT, CR and DX: the result is an image, not a label",
            version=__version__,
        )

    def init_infers(self) -> dict[str, DenoiseTask]:
        """Create one task that chooses the bundle by modality, and one for each bundle."""
        store = None
        if isinstance(self.datastore(), DICOMWebDatastore):
            store = partial(store_instances, self.datastore())
        networks = Networks(self._settings)
        self._shared = Denoising(self._settings, networks, tuple(self._bundles.values()), store)
        return {
            MODEL: DenoiseTask(self._shared),
            **{
                f"{MODEL}_{name}": DenoiseTask(self._shared, bundle)
                for name, bundle in self._bundles.items()
            },
        }

    def init_trainers(self) -> dict[str, ThreeStageTask]:
        """Create one training task, whose request names the modality."""
        return {MODEL: ThreeStageTask(self._trained, self._settings, self._bundles)}

    def info(self) -> dict[str, Any]:
        """Return the base class' info with bundles trained since the start."""
        self._add_trained()
        info: dict[str, Any] = super().info()
        return info

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Denoise an image, from its DICOM files if possible; a refusal states its reason.

        Raises:
            HTTPException: 422 with reason and message, if the image is refused.
        """
        self._add_trained()
        store = datastore or self.datastore()
        try:
            dicom = None
            if is_series(store, request.get("image")):
                dicom = str(image_file(store, request["image"]))
            wanted = {"label_tag": LABEL_TAG, **request, "dicom": dicom}
            result: dict[str, Any] = super().infer(wanted, datastore)
        except StillscanError as error:
            detail = f"{error.reason}: {error}"
            raise HTTPException(status_code=UNPROCESSABLE, detail=detail) from error
        return result

    def batch_infer(
        self, request: dict[str, Any], datastore: Datastore | None = None
    ) -> dict[str, Any]:
        """Denoise several images; without a GPU the base class would divide by zero."""
        gpus = torch.cuda.device_count() > 0
        wanted = {"label_tag": LABEL_TAG, "multi_gpu": gpus, **request}
        result: dict[str, Any] = super().batch_infer(wanted, datastore)
        return result

    def _add_trained(self) -> None:
        """Add the bundles that training has written, under their own names."""
        if not self._trained.is_dir():
            return
        for bundle in find_bundles(self._trained):
            self._infers.setdefault(f"{MODEL}_{bundle.name}", DenoiseTask(self._shared, bundle))

    def _download_dcmqi_tools(self) -> None:
        """Do nothing: the tools write segmentations, and nothing may be downloaded at run time."""
