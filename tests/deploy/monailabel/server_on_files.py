"""A server on a folder of NIfTI files: `python -m tests.deploy.monailabel.server_on_files WORK`.

Inside a network namespace of its own.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK

from bench.pacs import namespace
from bench.pacs.processes import wait_until
from tests.app.training.tiny_training import noisy_stack
from tests.deploy.monailabel.fake_slicer import Node, Scene, slicer_module
from tests.deploy.monailabel.label_server import PORT, LabelServer

AFFINE = np.diag([0.9, 0.8, 3.0, 1.0])
FIRST_STEP_S = 240.0


def main(work: Path) -> None:
    """Raises where something is not as it should be."""
    studies = work / "studies"
    studies.mkdir(parents=True)
    image = np.ascontiguousarray(noisy_stack(4, 96).transpose(2, 1, 0))
    for name in ("one", "two"):
        nibabel.save(nibabel.Nifti1Image(image, AFFINE), studies / f"{name}.nii.gz")
    with LabelServer(work / "server", str(studies), {}) as server:
        models = server.get("/info/")["models"]
        assert "stillscan_mr" in models, models
        image_of_the_datastore(server, image)
        volume_of_slicer(studies / "one.nii.gz", image)
        refusal(server)
        training(server)


def image_of_the_datastore(server: LabelServer, image: np.ndarray) -> None:
    """POST /infer?image=..."""
    facts, answer = server.infer("/infer/stillscan_mr?image=one", {})
    result = nibabel.Nifti1Image.from_bytes(gzip.decompress(answer))
    assert result.get_data_dtype() == np.float32
    assert result.shape == image.shape
    assert np.allclose(result.affine, AFFINE)
    assert facts["noise_after"] < 0.6 * facts["noise_before"], facts


def volume_of_slicer(file: Path, image: np.ndarray) -> None:
    """The module for 3D Slicer, with a stand-in for Slicer itself."""
    scene = Scene(lambda path: SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path)))
    volume = Node("head", image.transpose(2, 1, 0), file)
    address = f"http://127.0.0.1:{PORT}"
    with slicer_module(scene) as module:
        logic = module.StillscanDenoiseLogic()
        nodes, facts = logic.denoise(volume, address, maps=True, modality="MR", strength=0.5)
        assert [each.name for each in scene.nodes] == [
            "head denoised",
            "head noise",
            "head uncertainty",
        ]
        assert facts["strength"] == 0.5, facts
        left = (nodes["denoised"].values - volume.values).std()
        assert 5 < left < facts["noise_before"], left
        assert abs(nodes["noise"].values.mean() - facts["noise_before"]) < 3
        alone, _ = logic.denoise(volume, address, modality="MR", strength=0.5)
        assert np.allclose(alone["denoised"].values, nodes["denoised"].values, atol=1e-3)
        try:
            logic.denoise(volume, address)
        except RuntimeError as error:
            assert "modality-unknown" in str(error), error  # noqa: PT017
        else:
            raise AssertionError("a volume without modality was denoised")


def refusal(server: LabelServer) -> None:
    """A person sees why."""
    said = server.refusal("/infer/stillscan?image=one")
    assert said.startswith("422 modality-unknown: "), said


def training(server: LabelServer) -> None:
    """POST /train, its progress, and DELETE /train."""
    server.post("/train/stillscan", {"name": "ward7", "modality": "MR", "profile": "quick"})
    seen: dict[str, Any] = {}

    def trains() -> bool:
        seen.update(server.get("/train/"))
        assert seen["status"] != "ERROR", seen
        return any("blind spot: " in line for line in seen.get("details", []))

    wait_until(trains, FIRST_STEP_S, "the first stage trains", every_s=1.0)
    stats = server.get("/info/")["train_stats"]["stillscan"]
    assert (stats["name"], stats["total_epochs"]) == ("ward7", 100), stats
    stopped = server.get("/train/", method="DELETE")
    assert stopped["status"] == "STOPPED", stopped
    assert (server.app / "model/ward7/.training/run.json").exists()
    assert not (server.app / "model/ward7/configs").exists()


if __name__ == "__main__":
    namespace.enter(["tests.deploy.monailabel.server_on_files", *sys.argv[1:]])
    main(Path(sys.argv[1]))
