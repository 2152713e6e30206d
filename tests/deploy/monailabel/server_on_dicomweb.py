"""A server on a real Orthanc: `python -m tests.deploy.monailabel.server_on_dicomweb WORK`.

Inside a network namespace of its own, since Orthanc listens on all addresses.
"""

from __future__ import annotations

import json
import shutil
import sys
import urllib.request
from pathlib import Path

import nibabel
import pydicom

from bench.pacs import namespace
from bench.pacs.processes import Orthanc
from tests.deploy.monailabel.label_server import LabelServer
from tests.series_factory import make_series


def main(work: Path) -> None:
    """Raises where something is not as it should be."""
    files = make_series(work / "series", slices=5)
    source = str(pydicom.dcmread(files[0]).SeriesInstanceUID)
    orthanc = Orthanc(shutil.which("Orthanc", path="/usr/sbin:/usr/bin") or "", work / "pacs")
    orthanc.start()
    try:
        for file in files:
            upload(file)
        environment = {
            "MONAI_LABEL_DICOMWEB_SEARCH_FILTER": json.dumps({"Modality": "MR"}),
            "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(work / "cache"),
        }
        studies = "http://127.0.0.1:8042/dicom-web"
        with LabelServer(work / "server", studies, environment) as server:
            denoised_and_stored(server, orthanc, source)
    finally:
        orthanc.kill()


def denoised_and_stored(server: LabelServer, orthanc: Orthanc, source: str) -> None:
    """The result for the viewer, and the derived series in the PACS."""
    facts, answer = server.infer(f"/infer/stillscan?image={source}", {"store": True})
    assert (facts["modality"], facts["bundle"]) == ("MR", "mr"), facts
    assert answer[:2] == b"\x1f\x8b", answer[:100]  # gzip of NIfTI
    derived = facts["derived_series_instance_uid"]
    assert orthanc.series() == {source: 5, derived: 5}, orthanc.series()
    said = server.refusal(f"/infer/stillscan?image={derived}")
    assert said.startswith("422 not-selected: "), said
    (converted,) = server.app.parent.parent.glob(f"cache/*/{source}.nii.gz")
    assert nibabel.load(converted).ndim == 3  # what viewers are shown comes from MONAI Label


def upload(file: Path) -> None:
    """Give Orthanc a file."""
    request = urllib.request.Request(
        "http://127.0.0.1:8042/instances", data=file.read_bytes(), method="POST"
    )
    urllib.request.urlopen(request, timeout=60).close()


if __name__ == "__main__":
    namespace.enter(["tests.deploy.monailabel.server_on_dicomweb", *sys.argv[1:]])
    main(Path(sys.argv[1]))
