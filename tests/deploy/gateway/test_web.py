"""The web part answers whom it may, with what is there, and nothing about patients."""

import json
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench.robustness.http_abuse import mutants, outcome
from stillscan.deploy.gateway.record.database import Database, count
from stillscan.deploy.gateway.settings import StorageSection
from stillscan.deploy.gateway.web.http_server import HEAD_S
from stillscan.deploy.gateway.web.metrics import COUNTERS, PREFIX
from tests.deploy.gateway.listening import connect, everything_said, receiving
from tests.deploy.gateway.serving import TOKEN, record_job, serving


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("web")) as running:
        yield running


def ask_raw(web, request: bytes) -> bytes:
    return everything_said(connect(web.port, request))


def test_metrics_are_what_the_record_says(tmp_path):
    with serving(tmp_path) as web:
        record_job(web.places)
        record_job(web.places, state="dead", reason="time-out")
        database = Database(web.places.database)
        with database.transaction() as connection:
            count(connection, {"instances_received": 24, "worker_restarts": 2})
        database.close()
        answer = web.ask("/metrics")
    families = {
        family.name: family for family in text_string_to_metric_families(answer.body.decode())
    }
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert samples[f"{PREFIX}instances_received_total",] == 24
    assert samples[f"{PREFIX}restarts_total", "worker"] == 2
    assert samples[f"{PREFIX}jobs", "derived"] == 1
    assert samples[f"{PREFIX}jobs", "dead"] == 1
    assert {PREFIX + name for name in COUNTERS} <= families.keys()


def test_health_is_that_of_receiver_disk_and_record(tmp_path):
    with receiving(tmp_path / "receiver") as listening:
        with serving(tmp_path / "a", receiver_port=listening.port) as web:
            answer = web.ask("/healthz")
            assert answer.status == 200
            assert answer.json["status"] == "ok"
        full = StorageSection(most_used=1e-9)
        with serving(tmp_path / "b", receiver_port=listening.port, storage=full) as web:
            assert web.ask("/healthz").json["checks"]["disk"] is False
    with serving(tmp_path / "c", receiver_port=listening.port) as web:
        answer = web.ask("/healthz")
        assert answer.status == 503
        assert answer.json["checks"] == {"record": True, "disk": True, "receiver": False}
    assert listening.counts["connections_dropped"] == 0  # a probe is no stranger


def test_another_attempt_needs_the_token(tmp_path):
    with serving(tmp_path) as web:
        dead = record_job(web.places, state="dead", reason="time-out")
        derived = record_job(web.places, deliveries=(("pacs", "dead", "unreachable"),))
        assert web.ask(f"/jobs/{dead}/retry", "POST").status == 401
        assert web.ask(f"/jobs/{dead}/retry", "POST", token=TOKEN[:-1]).status == 401
        assert web.ask(f"/jobs/{dead}/retry", token=TOKEN).status == 405
        assert web.ask(f"/jobs/{derived}/retry", "POST", token=TOKEN).status == 409
        assert web.ask(f"/jobs/{dead}/retry", "POST", token=TOKEN).status == 200
        assert web.ask(f"/jobs/{dead}/retry", "POST", token=TOKEN).status == 409
        assert web.ask("/deliveries/1/retry", "POST", token=TOKEN).status == 200
    with serving(tmp_path / "without", token=None) as web:
        dead = record_job(web.places, state="dead")
        assert web.ask(f"/jobs/{dead}/retry", "POST", token="").status == 403


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/999",
        "/jobs/999/report",
        "/jobs/x",
        "/jobs/-1",
        "/assets/status.py",
        "/assets/../web.py",
        "/assets/..%2fweb.py",
        "/..%2f..%2fetc/passwd",
        "//etc/passwd",
        "/data/gateway.sqlite",
        "/jobs/1/report/../../x",
        "/jobs/" + "1" * 13,
    ],
)
def test_what_is_not_there_is_not_found(web, path):
    assert web.ask(path).status == 404


def test_every_answer_tells_a_browser_to_be_strict(web):
    for path in ("/", "/metrics", "/healthz", "/assets/status.js", "/nothing"):
        headers = web.ask(path).headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"


def test_a_page_of_another_site_cannot_ask_through_its_own_name(web):
    request = b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n"
    assert b" 421 " in ask_raw(web, request % b"attacker.example")
    assert b" 421 " in ask_raw(web, b"GET / HTTP/1.0\r\n\r\n")
    assert b" 400 " in ask_raw(web, b"GET / HTTP/1.1\r\n\r\n")  # RFC 9112 3.2
    for name in (b"localhost", b"127.0.0.1:8080", b"[::1]:8080"):
        assert b" 200 " in ask_raw(web, request % name)


@pytest.mark.parametrize(
    "request_",
    [
        b"\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"b" * 20_000,
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_no_request_gets_an_error(web, request_):
    answer = ask_raw(web, request_)
    assert answer.split(b" ")[1][:1] in (b"4", b"5")


HEAD = b"POST /studies HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer correct-horse\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"Content-Length: 5\r\n" + CHUNKED, 400),
        (CHUNKED + b"Content-Length: 5\r\n", 400),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", 400),
        (b"Content-Length: +5\r\n", 400),
        (b"Content-Length: 1_0\r\n", 400),
        (b"Content-Length: 0x5\r\n", 400),
        (b"Content-Length: -5\r\n", 400),
        (b"Content-Length: 999999999999\r\n", 413),
        (b"Transfer-Encoding: gzip, chunked\r\n", 501),
        (b"Transfer-Encoding: xchunked\r\n", 501),
        (CHUNKED + CHUNKED, 501),
        (b"Transfer-Encoding:\r\n chunked\r\n", 400),  # a folded line
        (b"A: b\r\n\tc\r\n", 400),
        (b"Transfer-Encoding : chunked\r\n", 400),
        (b"A: b\nContent-Length: 5\r\n", 400),
        (b"A: b\rContent-Length: 5\r\n", 400),
        (b"A: b\0c\r\n", 400),
        (b"no field\r\n", 400),
        (b"Host: other\r\n", 400),
        (b"A: b\r\n" * 100, 431),
        (b"A: " + b"b" * 2**14 + b"\r\n", 431),
    ],
)
def test_a_head_that_could_be_read_in_two_ways_is_refused(web, fields, status):
    answer = ask_raw(web, HEAD + fields + b"\r\n5\r\nhello\r\n0\r\n\r\n")
    assert int(answer.split(b" ")[1]) == status


@pytest.mark.parametrize(
    "body",
    [
        b"zz\r\n",
        b"-5\r\nhello",
        b"0x5\r\nhello",
        b"5\nhello\n0\n\n",
        b"5\r\nhelloXX0\r\n",
        b"f" * 21,
        b"1;" * 2**16,  # a line without end
    ],
)
def test_what_is_no_chunk_is_refused(web, body):
    fields = b"Content-Type: multipart/related; boundary=b\r\n" + CHUNKED
    answer = ask_raw(web, HEAD + fields + b"\r\n" + body + b"\r\n")
    assert int(answer.split(b" ")[1]) in (400, 431)


def test_a_target_that_is_no_address_is_refused(web):
    assert b" 400 " in ask_raw(web, b"GET //[ HTTP/1.1\r\nHost: localhost\r\n\r\n")


def test_a_client_that_waits_for_it_is_asked_for_the_body(web):
    fields = b"Content-Type: multipart/related; boundary=b\r\nContent-Length: 5\r\n"
    with connect(web.port, HEAD + fields + b"Expect: 100-continue\r\n\r\n") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue\r\n")
        connection.sendall(b"hello")
        assert everything_said(connection).startswith(b"HTTP/1.1 400 ")


def test_slow_requests_hold_nobody_up(web):
    slow = [connect(web.port, b"GET / HT") for _ in range(200)]
    began = time.monotonic()
    assert web.ask("/").status == 200
    assert time.monotonic() - began < HEAD_S / 2
    for connection in slow:
        connection.close()


def test_head_has_no_body(web):
    with urllib.request.urlopen(
        urllib.request.Request(web.address + "/", method="HEAD"), timeout=5
    ) as answer:
        assert int(answer.headers["Content-Length"]) > 500
        assert answer.read() == b""


def test_the_page_quotes_nothing_as_markup(tmp_path):
    with serving(tmp_path) as web:
        record_job(
            web.places,
            state="refused",
            reason="<script>alert(1)</script>",
            message='"><img src=x>',
            result={"warnings": ["<b>"], "verdict": {"decision": "<i>", "reasons": ["<u>"]}},
            deliveries=(("<em>", "dead", "<a>"),),
        )
        for path in ("/", "/jobs/1"):
            page = web.ask(path).body.decode()
            for mark in ("<script>alert", "<img", "<b>", "<i>", "<u>", "<em>", "<a>"):
                assert mark not in page


def test_everything_is_told_as_json_to_a_machine(web):
    assert json.loads(web.ask("/healthz").body)["checks"]["record"] is True


def test_the_log_states_who_asked_for_what(tmp_path, caplog):
    caplog.set_level("INFO", logger="stillscan.gateway")
    tokens = "miller one\nmeyer two"
    with serving(tmp_path, token=tokens, user_header="X-Remote-User") as web:
        job = record_job(web.places, state="dead", reason="time-out")
        proxy = {"X-Remote-User": "curie"}
        web.ask("/metrics")
        assert web.ask(f"/jobs/{job}", headers=proxy).status == 200
        assert web.ask(f"/jobs/{job}/retry", "POST", headers=proxy).status == 401
        assert web.ask(f"/jobs/{job}/retry", "POST", headers=proxy, token="two").status == 200
        assert web.ask(f"/jobs/{job}/retry", "POST", token="one").status == 409
    lines = [each for each in caplog.records if each.message == "access"]
    assert [(each.request, each.user, each.host, each.status) for each in lines] == [
        (f"GET /jobs/{job}", "curie", "127.0.0.1", 200),
        (f"POST /jobs/{job}/retry", "curie", "127.0.0.1", 401),
        (f"POST /jobs/{job}/retry", "meyer", "127.0.0.1", 200),
        (f"POST /jobs/{job}/retry", "miller", "127.0.0.1", 409),
    ]


def test_broken_requests_get_an_answer_and_end_nothing(web):
    """`python -m bench.robustness.http_abuse` sends 100,000."""
    with ThreadPoolExecutor(8) as clients:
        found = Counter(clients.map(partial(outcome, web.port), mutants(400, seed=20)))
    assert {"200", "400", "401"} <= found.keys()
    assert not [what for what in found if what.startswith("fault")], found
