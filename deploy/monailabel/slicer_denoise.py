"""For the Python console of 3D Slicer: a volume of the scene, denoised by a MONAI Label server.

    exec(open("/path/to/slicer_denoise.py").read())
    quiet = denoise(getNode("MRHead"), "http://localhost:8000", "stillscan_mr")

Slicer's own MONAI Label module shows segmentations only. This needs nothing but what Slicer brings.
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
    """Send a volume, load the quiet one beside it and show it.

    Args:
        volume: a scalar volume node.
        server: address of the MONAI Label server.
        model: `stillscan_mr`, `stillscan_ct`, `stillscan_xray`, or one that was trained there.
        parameters: of the request, such as `strength="low"` or `modality="MR"`.

    Returns:
        The node of the quiet volume.

    Raises:
        RuntimeError: with the reason, if the server refuses the volume.
    """
    import slicer

    with tempfile.TemporaryDirectory() as folder:
        noisy, quiet = Path(folder) / "noisy.nii.gz", Path(folder) / "quiet.nrrd"
        slicer.util.saveNode(volume, str(noisy))
        facts = ask(server, model, noisy, quiet, parameters)
        name = f"{volume.GetName()} ({facts['bundle']}, {facts['strength']:g})"
        node = slicer.util.loadVolume(str(quiet), {"name": name})
    node.GetDisplayNode().CopyContent(volume.GetDisplayNode())  # the same window as the original
    slicer.util.setSliceViewerLayers(background=node, foreground=volume, foregroundOpacity=0.0)
    return node


def ask(
    server: str, model: str, noisy: Path, quiet: Path, parameters: dict[str, Any]
) -> dict[str, Any]:
    """Send a file, write the answer's image; gives what else the answer says.

    Raises:
        RuntimeError: with the reason, if the server refuses the file.
    """
    wanted = {**parameters, "result_extension": quiet.suffix}
    with noisy.open("rb") as file:
        answer = requests.post(
            f"{server}/infer/{model}",
            data={"params": json.dumps(wanted)},
            files={"file": (noisy.name, file)},
            timeout=TIMEOUT_S,
        )
    if answer.status_code != requests.codes.ok:
        raise RuntimeError(f"{server} says {answer.status_code}: {answer.text}")
    head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
    parts: dict[Any, Any] = {
        part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
        for part in message_from_bytes(head + answer.content).walk()
    }
    quiet.write_bytes(parts["image"])
    facts: dict[str, Any] = json.loads(parts["params"])
    return facts
