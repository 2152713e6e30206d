"""For the Python console of 3D Slicer: denoises a volume with a MONAI Label server.

    exec(open("/path/to/slicer_denoise.py").read())
    denoised = denoise(getNode("MRHead"), "http://localhost:8000", "stillscan_mr")

Slicer's own MONAI Label module shows segmentations only. This script needs only Slicer's own
packages.
"""

from __future__ import annotations

import json
import tempfile
from email import message_from_bytes
from pathlib import Path
from typing import Any

import requests

TIMEOUT_S = 600


def denoise(volume: Any, server: str, model: str = "stillscan", **parameters: Any) -> Any:
    """Send a volume, load the denoised one beside it and show it.

    Args:
        volume: a scalar volume node.
        server: address of the MONAI Label server.
        model: `stillscan_mr`, `stillscan_ct`, `stillscan_xray`, or one trained on that server.
        parameters: parameters of the request, such as `strength="low"` or `modality="MR"`.

    Returns:
        The node of the denoised volume.

    Raises:
        RuntimeError: with the reason, if the server refuses the volume.
    """
    import slicer

    with tempfile.TemporaryDirectory() as folder:
        noisy, denoised = Path(folder) / "noisy.nii.gz", Path(folder) / "denoised.nrrd"
        slicer.util.saveNode(volume, str(noisy))
        facts = ask(server, model, noisy, denoised, parameters)
        name = f"{volume.GetName()} ({facts['bundle']}, {facts['strength']:g})"
        node = slicer.util.loadVolume(str(denoised), {"name": name})
    node.GetDisplayNode().CopyContent(volume.GetDisplayNode())  # the same window as the original
    slicer.util.setSliceViewerLayers(background=node, foreground=volume, foregroundOpacity=0.0)
    return node


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
            f"{server}/infer/{model}",
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
