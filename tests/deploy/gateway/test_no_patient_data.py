"""S5: no word about the patient in the gateway's log, record, metrics, pages and file names."""

import os
import urllib.request
from pathlib import Path

import pytest

from bench.pacs.processes import Gateway, wait_until
from bench.robustness.network_abuse import associated, free_port, store_pdus
from tests.app.test_no_patient_data import CANARY, write_canaries
from tests.deploy.gateway.listening import encoded
from tests.series_factory import make_series

PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """A gateway that has derived one such series, refused one, and could not deliver."""
    folder = tmp_path_factory.mktemp("gateway")
    port, web, nobody = free_port(), free_port(), free_port()
    gateway = Gateway(
        folder / "gateway",
        {
            "receiver": {"port": port},
            "web": {"port": web},
            "completeness": {"quiet-s": 2.0},
            "destinations": [
                {"name": "away", "kind": "c-store", "host": "127.0.0.1", "port": nobody}
                | {"ae-title": "AWAY"}
            ],
            "rules": [{"name": "all", "mode": "identity", "destinations": ["away"]}],
            "sender": {"attempts": 1},
        },
    )
    gateway.start()
    wait_until(lambda: _answers(port), PATIENCE_S, "the gateway receives")
    peer = associated(port)
    for seed, damage in enumerate((False, True)):
        for number, file in enumerate(make_series(folder / str(seed), slices=2, seed=seed)):
            write_canaries(file)
            data_set = encoded(file.read_bytes())
            uid = f"1.2.3.{seed}.{number}"
            peer.sendall(b"".join(store_pdus(1, uid, data_set[:-999] if damage else data_set)))
            peer.recv(4096)
    peer.close()
    wait_until(lambda: len(gateway.overview.recent_jobs()) >= 2, PATIENCE_S, "jobs are made")
    wait_until(gateway.is_idle, PATIENCE_S, "all is done")
    yield gateway, web
    gateway.kill()


def _answers(port: int) -> bool:
    try:
        associated(port).close()
    except OSError:
        return False
    return True


def silent(content: bytes) -> bool:
    return CANARY.lower().encode() not in content.lower()


def test_what_happened_is_what_was_meant_to(gateway):
    running, _ = gateway
    states = {job.state for job in running.overview.recent_jobs()}
    assert "derived" in states
    assert states & {"refused", "not-selected"}
    assert running.overview.counts().deliveries.keys() == {"dead"}


def test_the_log_says_nothing(gateway):
    running, _ = gateway
    log = running.log_file.read_bytes()
    assert b"job ended" in log
    assert silent(log)


def test_record_and_file_names_say_nothing(gateway):
    running, _ = gateway
    data = running.places.data
    for file in data.glob("gateway.sqlite*"):
        assert silent(file.read_bytes()), file.name
    assert silent(os.fsencode("\n".join(map(str, data.rglob("*")))))


def test_reports_say_nothing(gateway):
    running, _ = gateway
    reports = [file for file in running.places.reports.rglob("*") if file.is_file()]
    assert reports
    assert all(silent(file.read_bytes()) for file in reports)


def test_pages_and_metrics_say_nothing(gateway):
    running, web = gateway
    pages = ["/", "/metrics", "/healthz"]
    for job in running.overview.recent_jobs():
        pages.append(f"/jobs/{job.number}")
    for page in pages:
        with urllib.request.urlopen(f"http://127.0.0.1:{web}{page}", timeout=10) as answer:
            content = answer.read()
        assert content
        assert silent(content), page


def test_the_canaries_are_in_what_was_sent(gateway):
    running, _ = gateway
    spooled = list(Path(running.places.instances).rglob("*.dcm"))
    assert len(spooled) == 4
    assert not any(silent(file.read_bytes()) for file in spooled)
