"""`monailabel start_server` as a process on loopback, and requests to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from email.message import Message
from pathlib import Path
from typing import Any

from bench.pacs.processes import ROOT, wait_until

PORT = 8000
START_S = 180.0  # it imports torch, MONAI and ITK
ANSWER_S = 240.0


class RefusedError(Exception):
    """The server said no: status and detail."""


class LabelServer:
    """The app on some studies; what it writes goes below a folder of its own."""

    def __init__(self, work: Path, studies: str, environment: Mapping[str, str]) -> None:
        """`studies` is a folder or the address of a DICOMweb server."""
        self.app = work / "app"
        self.app.mkdir(parents=True)
        shutil.copy(ROOT / "deploy/monailabel/main.py", self.app)
        self._log = work / "server.log"
        self._studies = studies
        self._environment = {**os.environ, "HOME": str(work), **environment}

    def __enter__(self) -> LabelServer:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "monailabel.main", "start_server"]
        options = ["--app", str(self.app), "--studies", self._studies]
        place = ["--host", "127.0.0.1", "--port", str(PORT)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *options, *place],
                cwd=self.app,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers, START_S, "MONAI Label answers", every_s=0.5)
        return self

    def __exit__(self, *exception: object) -> None:
        """End it and all that it started."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def log(self) -> str:
        """What it said."""
        return self._log.read_text(errors="replace")

    def _answers(self) -> bool:
        assert self._process.poll() is None, self.log
        try:
            self.get("/info/")
        except (urllib.error.URLError, OSError):
            return False
        return True

    def get(self, path: str, method: str = "GET") -> Any:
        """An answer in JSON."""
        return json.loads(self._ask(urllib.request.Request(_url(path), method=method))[1])

    def post(self, path: str, body: object) -> Any:
        """JSON there and back."""
        request = urllib.request.Request(_url(path), json.dumps(body).encode(), method="POST")
        request.add_header("Content-Type", "application/json")
        return json.loads(self._ask(request)[1])

    def infer(
        self, path: str, parameters: Mapping[str, Any], file: Path | None = None
    ) -> tuple[dict[str, Any], bytes]:
        """Facts and image of an inference, as 3D Slicer asks for them."""
        boundary = uuid.uuid4().hex
        parts = [_part(boundary, 'name="params"', json.dumps(parameters).encode())]
        if file is not None:
            name = f'name="file"; filename="{file.name}"'
            parts.append(_part(boundary, name, file.read_bytes()))
        body = b"".join(parts) + f"--{boundary}--\r\n".encode()
        request = urllib.request.Request(_url(path), body, method="POST")
        request.add_header("Content-Type", f"multipart/form-data; boundary={boundary}")
        kind, answer = self._ask(request)
        if kind.startswith("application/json"):
            return json.loads(answer), b""
        return _parts(kind, answer)

    def refusal(self, path: str) -> str:
        """Status and detail of an inference that is refused."""
        try:
            self.infer(path, {})
        except RefusedError as error:
            return str(error)
        raise AssertionError(f"{path} was not refused")

    def _ask(self, request: urllib.request.Request) -> tuple[str, bytes]:
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                return str(answer.headers["Content-Type"]), answer.read()
        except urllib.error.HTTPError as error:
            body = error.read().decode(errors="replace")
            said = json.loads(body)["detail"] if body.startswith("{") else body
            raise RefusedError(f"{error.code} {said}") from error


def _url(path: str) -> str:
    return f"http://127.0.0.1:{PORT}{path}"


def _part(boundary: str, name: str, content: bytes) -> bytes:
    head = f"--{boundary}\r\nContent-Disposition: form-data; {name}\r\n\r\n"
    return head.encode() + content + b"\r\n"


def _parts(kind: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    """`params` and `image` of a multipart answer."""
    header = Message()
    header["Content-Type"] = kind
    found: dict[str, bytes] = {}
    for part in body.split(f"--{header.get_param('boundary')}".encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = head.split(b'name="', 1)[1].split(b'"', 1)[0].decode()
        found[name] = content[:-2]
    return json.loads(found["params"]), found["image"]
