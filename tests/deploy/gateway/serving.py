"""The web part in a thread of the test, with a record that the test fills."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillscan.deploy.gateway.receiver.spool import Spool
from stillscan.deploy.gateway.record.database import Database
from stillscan.deploy.gateway.record.overview import Overview
from stillscan.deploy.gateway.settings import (
    GatewaySettings,
    Places,
    ReceiverSection,
    StorageSection,
    WebSection,
)
from stillscan.deploy.gateway.web.http_server import HttpServer
from stillscan.deploy.gateway.web.routes import Web
from tests.deploy.gateway.listening import in_a_thread

TOKEN = "correct-horse"


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Serving:
    """A web part that runs."""

    port: int
    places: Places
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: object = None,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> Answer:
        """One request and its answer, whatever its status."""
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(
            self.address + path,
            data=body,  # type: ignore[arg-type]
            headers={**(headers or {}), **bearer},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read())


@contextmanager
def serving(
    folder: Path,
    *,
    token: str | None = TOKEN,
    storage: StorageSection | None = None,
    receiver_port: int = 1,
    **settings: Any,
) -> Iterator[Serving]:
    """A web part on a port of its own, until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    token_file = folder / "token"
    if token is not None:
        token_file.write_text(token + "\n")
    web = WebSection(port=0, token_file=token_file if token is not None else None, **settings)
    section = storage or StorageSection(1.0)
    whole = GatewaySettings(
        data=folder / "data",
        web=web,
        storage=section,
        receiver=ReceiverSection(port=receiver_port),
    )
    places = Places(whole.data)
    counts: Counter[str] = Counter()

    def count(name: str, increment: int) -> None:
        counts[name] += increment

    spool, overview = Spool(places, section), Overview(places)
    server = HttpServer(web, Web(whole, overview, spool, count).handle)
    with in_a_thread(server.serve):
        yield Serving(server.port, places, counts)


def record_job(
    places: Places,
    *,
    state: str = "derived",
    reason: str = "",
    message: str = "",
    derived_uid: str = "",
    result: Mapping[str, Any] | None = None,
    deliveries: tuple[tuple[str, str, str], ...] = (),
) -> int:
    """Write a series with one job into the record; `deliveries` are name, state and reason."""
    database = Database(places.database)
    now = time.time()
    with database.transaction() as connection:
        (known,) = connection.execute("SELECT count(*) FROM series").fetchone()
        series = connection.execute(
            "INSERT INTO series (uid, study_uid, modality, sender, ours, first_at, last_at, open) "
            "VALUES (?, '1.2', 'MR', 'SCANNER', 0, ?, ?, 0)",
            (f"1.2.840.99.{known + 1}", now, now),
        ).lastrowid
        job = connection.execute(
            "INSERT INTO jobs (key, series, revision, rule, task, images, priority, state, "
            "attempts, reason, message, derived_uid, result, created, started, finished) "
            "VALUES (?, ?, 1, 'everything', '{}', 12, 0, ?, 1, ?, ?, ?, ?, ?, ?, ?)",
            (
                str(known),
                series,
                state,
                reason,
                message,
                derived_uid,
                json.dumps(result or {}),
                now - 9,
                now - 5,
                now,
            ),
        ).lastrowid
        for name, how, why in deliveries:
            connection.execute(
                "INSERT INTO deliveries (job, destination, state, instances, attempts, reason) "
                "VALUES (?, ?, ?, 12, 3, ?)",
                (job, name, how, why),
            )
    database.close()
    assert job is not None
    return job
