"""One life of a real Orthanc: `python orthanc_session.py WORK ORTHANC DCMSEND FILES`.

Stores every file below FILES by C-STORE and fetches each instance back, over REST into WORK/rest
and over DICOMweb (WADO-RS) into WORK/wado. Orthanc 1.10 listens on all addresses whatever its
configuration says, so this runs inside a network namespace of its own, and sets its loopback up.
"""

from __future__ import annotations

import email
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from io import BytesIO
from pathlib import Path

from pydicom import dcmread

HTTP_PORT, DICOM_PORT = 8042, 4242
REST = f"http://127.0.0.1:{HTTP_PORT}"
START_S = 30.0


def main(work: Path, orthanc: str, dcmsend: str, files: Path) -> None:
    """Run the session; raises where a step fails."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    server = subprocess.Popen(
        [orthanc, str(configuration(work))],
        stdout=(work / "orthanc.log").open("w"),
        stderr=subprocess.STDOUT,
    )
    try:
        wait_until_it_answers(server)
        store(dcmsend, files)
        fetch_all(work)
    finally:
        server.kill()  # its folder is thrown away: it need not tidy up
        server.wait()


def configuration(work: Path) -> Path:
    """Write a configuration that keeps everything inside `work`."""
    path = work / "orthanc.json"
    settings = {
        "StorageDirectory": str(work / "storage"),
        "IndexDirectory": str(work / "storage"),
        "HttpPort": HTTP_PORT,
        "DicomPort": DICOM_PORT,
        "DicomAet": "ORTHANC",
        "AuthenticationEnabled": False,
        "RemoteAccessAllowed": False,
        "SyncStorageArea": False,
        "Plugins": ["/usr/share/orthanc/plugins"],
    }
    path.write_text(json.dumps(settings))
    return path


def get(path: str, accept: str = "*/*") -> tuple[bytes, str]:
    """Body and content type of an answer."""
    request = urllib.request.Request(REST + path, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read(), answer.headers["Content-Type"]


def wait_until_it_answers(server: subprocess.Popen[bytes]) -> None:
    """Return as soon as the server is there."""
    deadline = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            get("/system")
        except urllib.error.URLError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("Orthanc did not start; see orthanc.log")


def store(dcmsend: str, files: Path) -> None:
    """Send every file in the transfer syntax that it is in (storescu knows but one at a time)."""
    subprocess.run(
        [dcmsend, "-aec", "ORTHANC", "-dn", "+sd", "+r", "127.0.0.1", str(DICOM_PORT), str(files)],
        check=True,
        env=os.environ | {"TCP_NODELAY": "1"},  # dcmtk waits 40 ms for every instance without
    )


def fetch_all(work: Path) -> None:
    """Get every instance as it is in the archive, over both doors."""
    for folder in ("rest", "wado"):
        (work / folder).mkdir()
    for series in json.loads(get("/series?expand")[0]):
        for instance in series["Instances"]:
            save(work / "rest", get(f"/instances/{instance}/file")[0])
        study = json.loads(get(f"/studies/{series['ParentStudy']}")[0])
        for content in wado(
            study["MainDicomTags"]["StudyInstanceUID"],
            series["MainDicomTags"]["SeriesInstanceUID"],
        ):
            save(work / "wado", content)


def wado(study: str, series: str) -> list[bytes]:
    """The instances of a series over WADO-RS, in the transfer syntax that they are stored in."""
    body, content_type = get(
        f"/dicom-web/studies/{study}/series/{series}",
        accept='multipart/related; type="application/dicom"; transfer-syntax=*',
    )
    message = email.message_from_bytes(b"Content-Type: " + content_type.encode() + b"\n\n" + body)
    return [part.get_payload(decode=True) for part in message.get_payload()]


def save(folder: Path, content: bytes) -> None:
    """Write an instance into a file that is named by its UID."""
    uid = dcmread(BytesIO(content), specific_tags=["SOPInstanceUID"]).SOPInstanceUID
    (folder / f"{uid}.dcm").write_bytes(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]))
