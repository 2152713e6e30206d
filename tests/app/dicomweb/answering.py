"""A web server on loopback that answers as a test tells it, and remembers what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    """What is sent back; `length` other than the body's breaks off."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


@dataclass
class Asked:
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Answering:
    """Its address, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.url = ""


@contextmanager
def answering(answer: Callable[[Asked], Answer]) -> Iterator[Answering]:
    """Answer every request with what `answer` gives."""
    service = Answering()

    class Handler(BaseHTTPRequestHandler):
        def reply(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            asked = Asked(
                self.command, self.path, dict(self.headers.items()), self.rfile.read(length)
            )
            service.asked.append(asked)
            given = answer(asked)
            self.send_response(given.status)
            for name, value in given.headers.items():
                self.send_header(name, value)
            size = len(given.body) if given.length is None else given.length
            self.send_header("Content-Length", str(size))
            self.end_headers()
            self.wfile.write(given.body)

        do_GET = do_POST = reply  # noqa: N815 - the names are the library's

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_port}/dicom-web"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
