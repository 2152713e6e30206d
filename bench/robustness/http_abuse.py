"""Hostile HTTP requests to the gateway's web process: broken heads and bodies.

    python -m bench.robustness.http_abuse [--count 100000] [--seed 0]

Starts a web process of its own on loopback. A fault is a status 500, an answer that is not HTTP, no
answer to a complete head, or one that takes longer than 10 s; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import random
import re
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

from bench.robustness.fuzz import peak_kilobytes
from bench.robustness.network_abuse import free_port, running_part
from stillscan.deploy.gateway.settings import GatewaySettings, StorageSection, WebSection

TOKEN = "correct-horse"
LIMIT_S = 10.0
CLIENTS = 16
STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) ")
PART = b"--B\r\nContent-Type: application/dicom\r\n\r\n" + bytes(range(256)) + b"\r\n--B--\r\n"
STOW = b'Content-Type: multipart/related; type="application/dicom"; boundary=B\r\n'
HEADERS = b"Host: 127.0.0.1\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n"
VALID = (
    *(
        b"GET %s HTTP/1.1\r\n%s\r\n" % (path, HEADERS)
        for path in (b"/", b"/jobs/1", b"/jobs/1/report/1", b"/quarantine", b"/readyz", b"/metrics")
    ),
    *(
        b"POST %s HTTP/1.1\r\n%sContent-Length: 0\r\n\r\n" % (path, HEADERS)
        for path in (b"/jobs/1/retry", b"/deliveries/1/retry", b"/quarantine/a.dcm/retry")
    ),
    b"POST /studies HTTP/1.1\r\n%s%sContent-Length: %d\r\n\r\n%s"
    % (HEADERS, STOW, len(PART), PART),
    b"POST /studies HTTP/1.1\r\n%s%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
    % (HEADERS, STOW, len(PART), PART),
)
WORDS = (
    *(
        b"\0",
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b":",
        b";",
        b'"',
        b"%",
        b"%00",
        b"--B",
    ),
    *(b"//[", b"/../", b"http://[::1", b"*", b"?", b"#", b"\xff\xfe", b"\xc3\xa9", b"HTTP/9.9"),
    *(b"-1", b"0", b"9" * 40, b"1e9", b"+5", b"0x10", b"\xd9\xa3", b"A" * 20_000, b"a:b\r\n" * 200),
    *(b"Host: x\r\n", b"Content-Length: 5\r\n", b"Content-Length: 6\r\n", b"Bearer", b"bearer"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"boundary=", b"Expect: "),
    *(b"Expect: 100-continue\r\n", b"Content-Encoding: gzip\r\n", b"Connection: Upgrade\r\n"),
)


def _place(request: bytearray, chance: random.Random) -> int:
    return chance.randrange(len(request) + 1)


def _insert(request: bytearray, chance: random.Random) -> None:
    place = _place(request, chance)
    request[place:place] = chance.choice(WORDS)


def _replace(request: bytearray, chance: random.Random) -> None:
    place = _place(request, chance)
    request[place : place + chance.randrange(1, 20)] = chance.choice(WORDS)


def _bytes(request: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randrange(1, 9)):
        request[_place(request, chance) - 1] = chance.randrange(256)


def _delete(request: bytearray, chance: random.Random) -> None:
    place = _place(request, chance)
    del request[place : place + chance.randrange(1, 40)]


def _repeat(request: bytearray, chance: random.Random) -> None:
    place = _place(request, chance)
    request[place:place] = request[place : place + 60] * chance.randrange(1, 50)


def _cut(request: bytearray, chance: random.Random) -> None:
    del request[max(1, _place(request, chance)) :]


def _digits(request: bytearray, chance: random.Random) -> None:
    numbers = list(re.finditer(rb"\d+", request))
    if numbers:
        found = chance.choice(numbers)
        request[found.start() : found.end()] = chance.choice(WORDS)


DAMAGES = (_insert, _replace, _bytes, _delete, _repeat, _cut, _digits)


def mutants(count: int, seed: int) -> Iterator[bytes]:
    """Yield valid requests with one to three damages each."""
    for number in range(count):
        chance = random.Random(f"{seed} {number}")
        request = bytearray(chance.choice(VALID))
        for _ in range(chance.randrange(1, 4)):
            chance.choice(DAMAGES)(request, chance)
            request = request or bytearray(b"\r\n")
        yield bytes(request)


def outcome(port: int, request: bytes) -> str:
    """What a request gets: its status, `closed` without an answer, or a fault in words."""
    began, answer = time.monotonic(), bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as client:
        try:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            while piece := client.recv(2**16):
                answer += piece
        except TimeoutError:
            return "fault: no answer"
        except OSError:  # reset: the server has closed, before or after its answer
            pass
    status = STATUS_LINE.match(answer)
    if time.monotonic() - began > LIMIT_S:
        return "fault: too slow"
    if status is None:
        complete = b"\r\n\r\n" in request[: 2**14]
        if answer or (complete and len(request) < 2**14):
            return "fault: no HTTP answer"
        return "closed"
    return "fault: 500" if status[1] == b"500" else status[1].decode()


def main() -> None:
    """Send mutants to a web process and print the table of outcomes."""
    parser = argparse.ArgumentParser(prog="python -m bench.robustness.http_abuse")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        token, port = Path(name, "token"), free_port()
        token.write_text(TOKEN)
        settings = GatewaySettings(
            data=Path(name),
            web=WebSection(port=port, token_file=token),
            storage=StorageSection(1.0),
        )
        with running_part("web", settings, port) as process_id:
            sent = mutants(arguments.count, arguments.seed)
            while batch := list(islice(sent, 1000)):
                with ThreadPoolExecutor(CLIENTS) as clients:
                    outcomes = list(clients.map(partial(outcome, port), batch))
                found.update(outcomes)
                for what, request in zip(outcomes, batch, strict=True):
                    if what.startswith("fault"):
                        print(what, repr(request[:400]), flush=True)
            peak = peak_kilobytes(process_id) / 1024
            assert outcome(port, VALID[5]) == "200", "the process serves afterwards"
    for what, times in found.most_common():
        print(f"{times:8d} {what}")
    print(f"peak memory of the web process: {peak:.0f} MB")
    sys.exit(any(what.startswith("fault") for what in found))


if __name__ == "__main__":
    main()
