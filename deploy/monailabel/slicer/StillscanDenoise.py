"""A module of 3D Slicer: denoises a volume with a MONAI Label server and shows it before and after.

Slicer: Edit > Application Settings > Modules > Additional module paths: the folder of this file.
Only Slicer's own packages are needed.
"""

from __future__ import annotations

import json
import tempfile
from email import message_from_bytes
from pathlib import Path
from typing import Any

import ctk
import qt
import requests
import slicer
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleWidget,
)

TIMEOUT_S = 600
MODALITIES = ("MR", "CT", "CR", "DX")
MAPS = ("noise", "uncertainty")  # the components after the denoised image


def ask(
    server: str, model: str, noisy: Path, denoised: Path, parameters: dict[str, Any]
) -> dict[str, Any]:
    """Send a file, save the image of the answer and return its other data.

    Raises:
        RuntimeError: with the reason, if the server refuses the file.
    """
    wanted = {**parameters, "result_extension": denoised.suffix}
    with noisy.open("rb") as file:
        answer = requests.post(
            f"{server.rstrip('/')}/infer/{model}",
            data={"params": json.dumps(wanted)},
            files={"file": (noisy.name, file)},
            timeout=TIMEOUT_S,
        )
    if answer.status_code != requests.codes.ok:
        raise RuntimeError(f"{server} answered {answer.status_code}: {answer.text}")
    head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
    parts: dict[Any, Any] = {
        part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
        for part in message_from_bytes(head + answer.content).walk()
    }
    denoised.write_bytes(parts["image"])
    facts: dict[str, Any] = json.loads(parts["params"])
    return facts


class StillscanDenoise(ScriptedLoadableModule):  # type: ignore[misc]  # Slicer has no types
    """The entry in Slicer's list of modules."""

    def __init__(self, parent: Any) -> None:
        """Set title, category and help."""
        super().__init__(parent)
        parent.title = "Stillscan Denoise"
        parent.categories = ["Filtering"]
        parent.contributors = ["Stillscan"]
        parent.helpText = (
            "Removes noise with a MONAI Label server of Stillscan. Not a medical device: read the "
            "result with the original."
        )


class StillscanDenoiseLogic(ScriptedLoadableModuleLogic):  # type: ignore[misc]
    """Denoising without widgets; also for Slicer's Python console."""

    def denoise(
        self,
        volume: Any,
        server: str,
        model: str = "stillscan",
        maps: bool = False,
        **parameters: Any,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Add the denoised volume beside a volume and show it.

        Args:
            volume: a scalar volume node.
            server: address of the MONAI Label server.
            model: of the server, such as `stillscan`.
            maps: also add the noise of the original and the uncertainty of the result.
            parameters: of the request, such as `strength=0.5` or `modality="MR"`.

        Returns:
            The nodes by what they are (`denoised`, `noise`, `uncertainty`), and the server's facts:
            noise before and after, verdict of the quality gate, warnings.

        Raises:
            RuntimeError: with the reason, if the server refuses the volume.
        """
        with tempfile.TemporaryDirectory() as folder:
            noisy, denoised = Path(folder) / "noisy.nii.gz", Path(folder) / "denoised.nrrd"
            slicer.util.saveNode(volume, str(noisy))
            facts = ask(server, model, noisy, denoised, {**parameters, "maps": maps})
            loaded = slicer.util.loadVolume(str(denoised), {"show": False})
        values = slicer.util.arrayFromVolume(loaded).copy()  # [k, j, i] or [k, j, i, component]
        slicer.mrmlScene.RemoveNode(loaded)
        images = [values[..., number] for number in range(len(MAPS) + 1)] if maps else [values]
        nodes = {}
        for kind, image in zip(("denoised", *MAPS), images, strict=False):
            name = f"{volume.GetName()} {kind}"
            node = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, volume, name)
            slicer.util.updateVolumeFromArray(node, image)  # place and window are the original's
            nodes[kind] = node
        for kind in MAPS:
            if kind in nodes:
                nodes[kind].GetDisplayNode().AutoWindowLevelOn()
        slicer.util.setSliceViewerLayers(
            background=nodes["denoised"], foreground=volume, foregroundOpacity=0.0
        )
        return nodes, facts

    def compare(self, share_of_original: float) -> None:
        """Fade from the denoised volume (0) to the original (1)."""
        slicer.util.setSliceViewerLayers(foregroundOpacity=share_of_original)


class StillscanDenoiseWidget(ScriptedLoadableModuleWidget):  # type: ignore[misc]
    """The panel: server, volume, modality, strength, maps, button, before and after."""

    def setup(self) -> None:
        """Make the widgets."""
        super().setup()
        self.logic = StillscanDenoiseLogic()
        self.server = qt.QLineEdit("http://127.0.0.1:8000")
        self.volume = slicer.qMRMLNodeComboBox()
        self.volume.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.volume.setMRMLScene(slicer.mrmlScene)
        self.modality = qt.QComboBox()
        self.modality.addItems(list(MODALITIES))
        self.strength, self.share = ctk.ctkSliderWidget(), ctk.ctkSliderWidget()
        for slider, value in ((self.strength, 1.0), (self.share, 0.0)):
            slider.minimum, slider.maximum, slider.singleStep = 0.0, 1.0, 0.05
            slider.value = value
        self.maps = qt.QCheckBox()
        self.button = qt.QPushButton("Denoise")
        self.result = qt.QLabel()
        self.result.wordWrap = True
        form = qt.QFormLayout()
        for label, widget in (
            ("MONAI Label server", self.server),
            ("Volume", self.volume),
            ("Modality", self.modality),
            ("Strength", self.strength),
            ("Noise and uncertainty maps", self.maps),
            ("", self.button),
            ("Result", self.result),
            ("Denoised to original", self.share),
        ):
            form.addRow(label, widget)
        self.layout.addLayout(form)
        self.layout.addStretch(1)
        self.button.connect("clicked()", self.denoise)
        self.share.connect("valueChanged(double)", self.logic.compare)

    def denoise(self) -> None:
        """Denoise the chosen volume; a refusal is shown in the panel."""
        volume = self.volume.currentNode()
        self.result.text = "working" if volume else "choose a volume"
        if volume is None:
            return
        slicer.app.processEvents()
        try:
            _, facts = self.logic.denoise(
                volume,
                self.server.text,
                maps=self.maps.checked,
                modality=self.modality.currentText,
                strength=self.strength.value,
            )
        except (RuntimeError, requests.RequestException) as error:
            self.result.text = str(error)
            return
        self.share.value = 0.0
        noise = f"noise {facts['noise_before']:.3g} -> {facts['noise_after']:.3g} {facts['unit']}"
        self.result.text = "; ".join([facts["verdict"], noise, *facts["warnings"]])
