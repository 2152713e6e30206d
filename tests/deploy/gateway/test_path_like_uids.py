"""A UID never becomes a path: whatever a sender calls things, nothing is written elsewhere."""

import itertools
import tempfile
import time
from pathlib import Path

import pytest
from pydicom import dcmread

from bench.robustness.network_abuse import associated, store_pdus
from stillscan.deploy.gateway.planner.planner import Planner
from stillscan.deploy.gateway.planner.worker import Worker
from stillscan.deploy.gateway.record.database import Database
from stillscan.deploy.gateway.record.jobs import JobQueue
from stillscan.deploy.gateway.record.overview import Overview
from stillscan.deploy.gateway.settings import (
    Destination,
    GatewaySettings,
    Places,
    Rule,
    WorkerSection,
)
from stillscan.operators.reading.decoder import Decoder
from tests.deploy.gateway.listening import encoded, receiving
from tests.deploy.gateway.record import AT_ONCE
from tests.deploy.gateway.serving import TOKEN, serving
from tests.deploy.gateway.test_stow import RELATED, multipart
from tests.series_factory import make_series

ESCAPED = "stillscan-escaped"
ELSEWHERE = Path(tempfile.gettempdir())
PATTERNS = [
    f"../../{ESCAPED}",
    f"../../../../../../{ELSEWHERE.name}/{ESCAPED}",
    f"{ELSEWHERE}/{ESCAPED}",
    f"1.2/../../../{ESCAPED}",
    f"..\\..\\{ESCAPED}",
    f"file://{ELSEWHERE}/{ESCAPED}",
    f"%2e%2e/{ESCAPED}",
    f"~/{ESCAPED}",
    f"$HOME/{ESCAPED}",
    f"a\\{ELSEWHERE}/{ESCAPED}",
    f"....//....//{ESCAPED}",
    f"..\x00/{ESCAPED}",
]
PLACES = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "all")
KEYWORDS = PLACES[:3]


def path_like(pattern: str, number: int, length: int) -> bytes:
    """The pattern, as long as the UID that it takes the place of."""
    return f"{pattern}-{number}".encode()[:length].ljust(length, b"x")


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    (file,) = make_series(tmp_path_factory.mktemp("series"), slices=1)
    return file


@pytest.mark.slow
def test_no_uid_leads_out_of_the_data_folder(tmp_path, file):
    before = neighbours(tmp_path)
    content = file.read_bytes()
    uids = {keyword: str(dcmread(file)[keyword].value) for keyword in KEYWORDS}
    settings = GatewaySettings(
        data=tmp_path / "data",
        completeness=AT_ONCE,
        destinations=(Destination("out", "folder", folder=tmp_path / "out"),),
        rules=(Rule("all", mode="identity", destinations=("out",)),),
    )
    sent = 0
    with receiving(settings.data, max_associations_per_host=4) as listening:
        peer = associated(listening.port)
        for pattern, place in itertools.product(PATTERNS, PLACES):
            sent += 1
            changed = replaced(content, uids, place, pattern, sent)
            peer.sendall(b"".join(store_pdus(sent, f"1.2.{sent}", encoded(changed))))
            peer.recv(4096)
        for pattern in PATTERNS:  # in the command set
            sent += 1
            peer.sendall(b"".join(store_pdus(sent, f"{pattern}-{sent}"[:64], encoded(content))))
            peer.recv(4096)
        peer.close()
        acknowledged = len(listening.files())
    with serving(tmp_path / "web") as web:
        for pattern, place in itertools.product(PATTERNS, ("SOPInstanceUID", "all")):
            for part in (0, 1):  # of the file meta too, or of the data set alone
                sent += 1
                changed = replaced(content, uids, place, pattern, sent)
                body = multipart((changed[:200] if part else content[:200]) + changed[200:])
                web.ask("/studies", "POST", body, {"Content-Type": RELATED}, TOKEN)
    assert sent >= 100
    assert acknowledged == len(PATTERNS) * len(PLACES)
    work_off(settings)
    assert neighbours(tmp_path) == before
    assert {each.name for each in tmp_path.iterdir()} <= {"data", "out", "web"}
    assert not [each for each in tmp_path.rglob("*") if "escaped" in each.name or "%" in each.name]


def replaced(content: bytes, uids: dict[str, str], place: str, pattern: str, number: int) -> bytes:
    """The file with a path in the place of a UID, or of all of them."""
    for keyword in KEYWORDS if place == "all" else (place,):
        uid = uids[keyword].encode()
        content = content.replace(uid, path_like(pattern, number, len(uid)))
    return content


def work_off(settings: GatewaySettings) -> None:
    """Let planner and worker do with it what they would do."""
    places = Places(settings.data)
    database = Database(places.database)
    queue = JobQueue(database, WorkerSection(attempts=1))
    with Decoder() as decoder:
        planner = Planner(settings, places, database, decoder)
        while planner.tick():
            pass
        time.sleep(0.01)
        planner.tick()
        worker = Worker(settings, places, queue, decoder)
        while (job := queue.claim()) is not None:
            worker.attempt(job)
    jobs = Overview(places).recent_jobs(1000)
    assert jobs
    assert all(job.state in ("refused", "not-selected", "derived") for job in jobs), jobs
    database.close()


def neighbours(folder: Path) -> set[str]:
    """What lies where an escape would lead to."""
    around = (folder.parent, folder.parent.parent, ELSEWHERE, Path.cwd(), Path.cwd().parent)
    found = {str(each) for place in around for each in place.glob(f"*{ESCAPED}*")}
    return found | {str(each) for each in folder.parent.iterdir()}
