"""The module for 3D Slicer without Slicer and without a server; `server_on_files` has one."""

import json
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import requests

from tests.deploy.monailabel.fake_slicer import Node, Scene, slicer_module

VALUES = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
FACTS = {
    "noise_before": 20.0,
    "noise_after": 5.0,
    "unit": "HU",
    "verdict": "accept",
    "warnings": ["w"],
}


@pytest.fixture
def slicer(tmp_path, monkeypatch):
    """A Slicer whose server answers with the values, their noise and uncertainty."""
    (tmp_path / "noisy").write_bytes(b"voxels")
    scene = Scene(lambda path: np.stack([VALUES / 2, VALUES / 4, VALUES / 8], -1))
    asked = {}

    def post(url, data, files, timeout):
        asked.update(json.loads(data["params"]), url=url, sent=files["file"][1].read())
        if asked["modality"] == "US":
            return SimpleNamespace(status_code=422, text="no-bundle-for-modality: US")
        part = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
        body = part % (b"params", json.dumps(FACTS).encode()) + part % (b"image", b"voxels")
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        return SimpleNamespace(status_code=200, headers=headers, content=body + b"--b--\r\n")

    monkeypatch.setattr(requests, "post", post)
    with slicer_module(scene) as module:
        volume = Node("head", VALUES, tmp_path / "noisy")
        yield SimpleNamespace(scene=scene, asked=asked, module=module, volume=volume)


def test_denoised_volume_and_maps_stand_beside_the_original(slicer):
    logic = slicer.module.StillscanDenoiseLogic()
    nodes, facts = logic.denoise(
        slicer.volume, "http://host:8000/", maps=True, strength=0.5, modality="CT"
    )
    assert slicer.asked["url"] == "http://host:8000/infer/stillscan"
    assert slicer.asked["sent"] == b"voxels"
    assert (slicer.asked["strength"], slicer.asked["modality"]) == (0.5, "CT")
    assert (slicer.asked["maps"], slicer.asked["result_extension"]) == (True, ".nrrd")
    assert facts == FACTS
    names = ["head denoised", "head noise", "head uncertainty"]
    assert [each.name for each in slicer.scene.nodes] == names
    for kind, share in (("denoised", 2), ("noise", 4), ("uncertainty", 8)):
        assert np.array_equal(nodes[kind].values, VALUES / share)
    assert slicer.scene.layers["background"] is nodes["denoised"]
    assert slicer.scene.layers["foreground"] is slicer.volume
    logic.compare(0.4)
    assert slicer.scene.layers["foregroundOpacity"] == 0.4


@pytest.mark.parametrize(
    ("modality", "said"),
    [("CT", "accept; noise 20 -> 5 HU; w"), ("US", "422: no-bundle-for-modality: US")],
)
def test_the_button_shows_what_the_server_says(slicer, modality, said):
    widget = slicer.module.StillscanDenoiseWidget()
    widget.setup()
    widget.volume.currentNode = lambda: slicer.volume
    widget.server = SimpleNamespace(text="http://host:8000")
    widget.maps = SimpleNamespace(checked=True)
    widget.modality = SimpleNamespace(currentText=modality)
    widget.strength = SimpleNamespace(value=0.7)
    widget.denoise()
    assert widget.result.text.endswith(said)
    assert slicer.asked["strength"] == 0.7
    widget.volume.currentNode = lambda: None
    widget.denoise()
    assert widget.result.text == "choose a volume"


def test_the_module_names_itself(slicer):
    parent = MagicMock()
    slicer.module.StillscanDenoise(parent)
    assert parent.title == "Stillscan Denoise"
