"""The reading process: parses and decodes untrusted files under resource limits of the kernel.

`Decoder` starts it and exchanges messages with it over its standard input, a socket. A message is a
length (4 bytes, big endian), JSON, and then as many raw bytes as the JSON declares. Nothing here
imports more than the standard library until a file needs a decoder or the dictionary, so that the
first answer comes within 0.05 s, while the parent still imports torch.
"""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from stillscan.operators.errors import DecoderStoppedError, InputError
from stillscan.operators.reading.limits import most_header_bytes
from stillscan.operators.reading.sandbox.file_source import FileSource
from stillscan.operators.reading.sandbox.frame_attributes import frame_attributes
from stillscan.operators.reading.sandbox.identify import identify, require_uids
from stillscan.operators.reading.sandbox.image_attributes import image_attributes
from stillscan.operators.reading.sandbox.open_file import HeldFile, no_garbage_collection
from stillscan.operators.reading.sandbox.parser import ParsedFile, parse_file
from stillscan.operators.reading.sandbox.pixel_data import (
    is_compressed,
    require_integer_pixels,
    require_pixel_data,
)
from stillscan.operators.reading.sandbox.system_calls import forbid_system_calls

SOCKET = 0
DECODING_FACTOR = 16  # JPEG 2000 holds its samples as 32 bits, several times over
PARSING_FACTOR = 16  # an element of a few bytes becomes an object of a hundred

Answer = tuple[dict[str, Any], list[bytes]]


def serve(address_space: int, cpu_s: int, bytes_per_s: int) -> None:
    """Answer requests until the parent closes the socket.

    Args:
        address_space: bytes that this process may map before the size of a file's frames is known.
        cpu_s: seconds of processor time for each file.
        bytes_per_s: for each such number of bytes of a header or decoded frame, one second more.
    """
    limit_process(address_space)
    forbid_system_calls()  # the parent checks whether this was possible
    held = HeldFile()
    while (request := receive_request()) is not None:
        compressed = False
        for path, frame, with_header in request:
            header_bytes = most_header_bytes(path)
            limit_address_space(address_space + PARSING_FACTOR * header_bytes)
            limit_cpu(cpu_s + header_bytes // bytes_per_s)
            try:
                if frame is None:
                    with no_garbage_collection(), opened(path) as parsed:
                        compressed = compressed or is_compressed(parsed)
                        answer = scan(parsed)
                else:
                    file = held.opened(path)
                    needed = DECODING_FACTOR * file.image.frame_bytes
                    limit_address_space(address_space + PARSING_FACTOR * header_bytes + needed)
                    limit_cpu(cpu_s + file.image.frame_bytes // bytes_per_s)
                    answer = file.read(frame, with_header)
            except InputError as error:
                answer = {"fault": [error.reason, str(error)]}, []
            except MemoryError:
                held.close()
                stopped = DecoderStoppedError(f"needs more than {address_space >> 20} MiB")
                answer = {"fault": [stopped.reason, str(stopped)]}, []
            send(*answer)
        if compressed:
            warm_up()


def scan(parsed: ParsedFile) -> Answer:
    """Return the attributes of the file, or its fault; the pixels are not read."""
    known = identify(parsed)
    answer: dict[str, Any] = {"known": asdict(known), "image": None, "frames": [], "fault": None}
    try:
        require_uids(known)
        require_integer_pixels(parsed)
        tags = parsed.tags
        image = image_attributes(tags)
        require_pixel_data(parsed, image)  # checks the size before anything is allocated
        answer["frames"] = [asdict(frame) for frame in frame_attributes(tags, image)]
        answer["image"] = asdict(image)
    except InputError as error:
        answer["fault"] = [error.reason, str(error)]
    return answer, []


@contextmanager
def opened(path: str) -> Iterator[ParsedFile]:
    """Yield the parsed file and close it afterwards."""
    source = FileSource(path)
    try:
        yield parse_file(source)
    finally:
        source.close()


def warm_up() -> None:
    """Import the decoders before the first frame is requested."""
    import pydicom.pixels  # noqa: F401


def limit_process(address_space: int) -> None:
    """Forbid this process to write files, to dump its core and to map more memory."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the parent, which closes the socket
    for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(limit, (0, 0))
    limit_address_space(address_space)


def limit_address_space(size: int) -> None:
    """Limit the address space of this process to `size` bytes."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_within(size, hard), hard))


def limit_cpu(seconds: int) -> None:
    """Limit the processor time to `seconds` from now on; then the kernel ends this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    allowed = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (_within(allowed, hard), hard))


def _within(limit: int, hard: int) -> int:
    return limit if hard == resource.RLIM_INFINITY else min(limit, hard)


def receive_request() -> list[tuple[str, int | None, bool]] | None:
    """Return the requests: path, frame (None: attributes only), whether the header is wanted."""
    size = _received(4)
    if size is None:
        return None
    body = _received(int.from_bytes(size, "big"))
    if body is None:
        return None
    return [(path, frame, with_header) for path, frame, with_header in json.loads(body)]


def send(answer: dict[str, Any], payloads: list[bytes]) -> None:
    """Send one answer, followed by `payloads`, whose lengths it contains."""
    body = json.dumps(answer).encode()
    for part in (len(body).to_bytes(4, "big") + body, *payloads):
        rest = memoryview(part)
        while rest:
            rest = rest[os.write(SOCKET, rest) :]


def _received(count: int) -> bytes | None:
    pieces: list[bytes] = []
    while count > 0:
        piece = os.read(SOCKET, count)
        if not piece:
            return None
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)
