"""The processes of the gateway, and how each is begun, stopped and ended.

A part is a function `run(settings, stop)` that returns soon after `stop` is set (SIGTERM): the
receiver lets running associations end, the worker its job, the sender its delivery. A part may also
be killed at any moment; what it was doing is found in the spool and the database when it starts
again. The functions are

    receiver   deploy.gateway.receiver.run     C-STORE, C-ECHO
    web        deploy.gateway.web.run          STOW-RS, status page, /metrics, /healthz
    planner    deploy.gateway.planner.run      files instances, finds complete series, makes jobs
    worker     deploy.gateway.worker.run       denoises
    sender     deploy.gateway.sender.run       delivers
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from deploy.gateway.settings import GatewaySettings

Run = Callable[[GatewaySettings, threading.Event], None]

PARTS = ("receiver", "web", "planner", "worker", "sender")
