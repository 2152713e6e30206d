"""The web process: status page, metrics, health checks and STOW-RS on one port (default: loopback).

GET  /                      the queue and the most recent jobs
GET  /jobs/<number>         one job; /jobs/<number>/report: its report
GET  /quarantine            instances that could not be filed
GET  /metrics               for Prometheus
GET  /livez, /readyz        health checks (see `health`); /healthz is the same as /readyz
POST /jobs/<number>/retry, /deliveries/<number>/retry, /quarantine/<name>/retry,
     /studies (STOW-RS)     with the token
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST

from stillscan.deploy.gateway.heartbeat import Heartbeat
from stillscan.deploy.gateway.receiver.spool import Spool
from stillscan.deploy.gateway.record.counters import Counters
from stillscan.deploy.gateway.record.overview import JobRow, Overview
from stillscan.deploy.gateway.settings import GatewaySettings, Places, users_of
from stillscan.deploy.gateway.web.health import Health
from stillscan.deploy.gateway.web.http_server import (
    HttpServer,
    Request,
    RequestError,
    Response,
    json_response,
    text_response,
)
from stillscan.deploy.gateway.web.metrics import exposition
from stillscan.deploy.gateway.web.status_pages import job_page, overview_page, quarantine_page
from stillscan.deploy.gateway.web.stow import store

log = logging.getLogger("stillscan.gateway")

ASSETS = Path(__file__).with_name("assets")
ASSET_TYPES = {
    "status.css": "text/css; charset=utf-8",
    "status.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
HTML = "text/html; charset=utf-8"
UNRECORDED = re.compile("/(assets/.*|metrics|livez|readyz|healthz)?")
POLICY = re.compile(rb'http-equiv="Content-Security-Policy" content="([^"\r\n]+)"')
HEAD_BYTES = 2000  # of a report page, in which its policy stands


def run(settings: GatewaySettings, stop: threading.Event) -> None:
    """Answer requests until `stop` is set.

    Raises:
        OSError: if the port or a certificate cannot be used.
        SettingsError: if the token file cannot be read.
    """
    places = Places(settings.data)
    overview = Overview(places)
    with Counters(overview) as count:
        web = Web(settings, overview, Spool(places, settings.storage), count)
        server = HttpServer(settings.web, web.handle, Heartbeat(places, "web").beat)
        log.info("status page on http://%s:%d/", settings.web.host, server.port)
        server.serve(stop)


class Web:
    """Answers requests by their method and path."""

    def __init__(
        self,
        settings: GatewaySettings,
        overview: Overview,
        spool: Spool,
        count: Callable[[str, int], None],
    ) -> None:
        """Read the tokens.

        Raises:
            SettingsError: if the token file cannot be read.
        """
        self._settings = settings
        self._overview = overview
        self._spool = spool
        self._count = count
        self._health = Health(settings, overview, spool)
        self._users = users_of(settings.web.token_file)
        self._routes: list[tuple[str, re.Pattern[str], Callable[..., Response]]] = [
            ("GET", re.compile("/"), self._front),
            ("GET", re.compile(r"/jobs/(\d{1,12})"), self._job),
            ("GET", re.compile(r"/jobs/(\d{1,12})/report(?:/(\d{1,4}))?"), self._report),
            ("GET", re.compile("/quarantine"), self._quarantine),
            ("GET", re.compile(r"/assets/([a-z.]+)"), self._asset),
            ("GET", re.compile("/metrics"), self._metrics),
            ("GET", re.compile("/livez"), self._alive),
            ("GET", re.compile("/readyz|/healthz"), self._ready),
            ("POST", re.compile(r"/quarantine/([a-z0-9.-]{1,80})/retry"), self._release),
            ("POST", re.compile(r"/jobs/(\d{1,12})/retry"), self._retry_job),
            ("POST", re.compile(r"/deliveries/(\d{1,12})/retry"), self._retry_delivery),
            ("POST", re.compile("/studies"), self._stow),
        ]

    def handle(self, request: Request) -> Response:
        """Answer a request.

        Raises:
            RequestError: if the request cannot be answered.
        """
        method = "GET" if request.method == "HEAD" else request.method
        known = False
        for wanted, pattern, answer in self._routes:
            if found := pattern.fullmatch(request.path):
                known = True
                if method == wanted:
                    return self._recorded(request, answer, found.groups())
        if known:
            raise RequestError(HTTPStatus.METHOD_NOT_ALLOWED, "this method is not allowed here")
        raise RequestError(HTTPStatus.NOT_FOUND, "not found")

    def _recorded(
        self, request: Request, answer: Callable[..., Response], groups: tuple[str | None, ...]
    ) -> Response:
        """Answer, and log who asked for what; monitoring and assets are not logged."""
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        try:
            response = answer(request, *groups)
            status = response.status
        except RequestError as error:
            status = error.status
            raise
        finally:
            if not UNRECORDED.fullmatch(request.path):
                about = {"user": self._user(request), "host": request.host, "status": status.value}
                log.info("access", extra={"request": f"{request.method} {request.path}", **about})
        return response

    def _user(self, request: Request) -> str:
        """The user of the token, or the one whom the reverse proxy names."""
        named = (user for user, token in self._users.items() if request.has_token(token))
        header = self._settings.web.user_header
        return next(named, request.headers.get(header, "")[:64] if header else "")

    def _front(self, _: Request) -> Response:
        page = overview_page(
            self._overview.counts(),
            [(job, self._overview.deliveries(job.number)) for job in self._overview.recent_jobs()],
            self._settings.storage.most_used,
        )
        return Response(body=page.encode(), content_type=HTML)

    def _quarantine(self, _: Request) -> Response:
        page = quarantine_page(self._overview.quarantine.listed(), bool(self._users))
        return Response(body=page.encode(), content_type=HTML)

    def _job(self, _: Request, number: str) -> Response:
        job = self._known_job(number)
        page = job_page(
            job,
            self._overview.deliveries(job.number),
            len(self._reports(job)),
            may_retry=bool(self._users),
        )
        return Response(body=page.encode(), content_type=HTML)

    def _report(self, _: Request, number: str, image: str | None) -> Response:
        """A report page of a job, with the policy that it states, and cut off from this site."""
        try:
            page = self._reports(self._known_job(number))[int(image or 1) - 1].read_bytes()
        except (OSError, IndexError):
            raise RequestError(HTTPStatus.NOT_FOUND, "this series has no report") from None
        stated = POLICY.search(page[:HEAD_BYTES])
        own = stated[1].decode() if stated else "default-src 'none'"
        policy = f"{own}; frame-ancestors 'self'; sandbox allow-scripts"
        return Response(body=page, content_type=HTML, headers={"Content-Security-Policy": policy})

    def _asset(self, _: Request, name: str) -> Response:
        if name not in ASSET_TYPES:
            raise RequestError(HTTPStatus.NOT_FOUND, "not found")
        return Response(body=(ASSETS / name).read_bytes(), content_type=ASSET_TYPES[name])

    def _metrics(self, _: Request) -> Response:
        return Response(body=exposition(self._overview), content_type=CONTENT_TYPE_LATEST)

    def _alive(self, _: Request) -> Response:
        return json_response({"status": "ok"})

    def _ready(self, _: Request) -> Response:
        checks = self._health.ready()
        well = all(checks.values())
        status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
        return json_response({"status": "ok" if well else "failing", "checks": checks}, status)

    def _release(self, request: Request, name: str) -> Response:
        self._require_token(request)
        if not self._overview.quarantine.release(name):
            raise RequestError(HTTPStatus.CONFLICT, "the quarantine does not contain this instance")
        return text_response("The instance will be filed again.")

    def _retry_job(self, request: Request, number: str) -> Response:
        self._require_token(request)
        if not self._overview.retry_job(int(number)):
            raise RequestError(HTTPStatus.CONFLICT, "this job cannot be tried again")
        return text_response("The job is queued again.")

    def _retry_delivery(self, request: Request, number: str) -> Response:
        self._require_token(request)
        if not self._overview.retry_delivery(int(number)):
            raise RequestError(HTTPStatus.CONFLICT, "this delivery cannot be tried again")
        return text_response("The series will be sent again.")

    def _stow(self, request: Request) -> Response:
        if not self._settings.web.stow:
            raise RequestError(HTTPStatus.NOT_FOUND, "STOW-RS is switched off")
        self._require_token(request)
        return store(request, self._spool, self._count)

    def _require_token(self, request: Request) -> None:
        if not self._users:
            raise RequestError(HTTPStatus.FORBIDDEN, "no token is configured: see web.token-file")
        if not any(map(request.has_token, self._users.values())):
            raise RequestError(HTTPStatus.UNAUTHORIZED, "wrong or missing token")

    def _known_job(self, number: str) -> JobRow:
        job = self._overview.job(int(number))
        if job is None:
            raise RequestError(HTTPStatus.NOT_FOUND, "this job does not exist")
        return job

    def _reports(self, job: JobRow) -> list[Path]:
        """The page of the series, or one for each image that was denoised by itself."""
        pages = (Places(self._settings.data).reports / str(job.number)).glob("*.html")
        return sorted(each for each in pages if each.name != "index.html")
