"""Workers as Ray actors: each gets one series at a time, is watched, and is replaced if it fails.

Ray is imported here only, and late. A local Ray listens on the loopback interface only, has no
dashboard, sends no statistics, keeps its files in a temporary folder, and requires a token that
only its own processes know.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from stillscan.app.backfill.errors import NoWorkersError, RayMissingError, RayUnreachableError
from stillscan.app.backfill.records import Fault, Outcome, Ready
from stillscan.app.backfill.work_items import WorkItem
from stillscan.app.backfill.worker import MAX_MESSAGE, Order, Worker, remove_abandoned
from stillscan.app.logging_setup import set_up_logging
from stillscan.app.process_setup import share_one_heap

LOCAL_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # makes Ray use 127.0.0.1 for this node
    "RAY_AUTH_MODE": "token",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # avoids a warning about the next major version
}
RAY_FILES = "stillscan-ray-"
OBJECT_STORE = 80 * 2**20  # bytes, Ray's minimum: messages are small
MOST_STARTS_IN_VAIN = 3  # failed starts per worker before any was ready
OUR_LINE = re.compile(r'/((?:app|operators|models)/[\w/]+\.py)", line (\d+)')
ANSWERS_S = 10.0
START_S = 900.0  # a cluster may have to free resources first


@dataclass(frozen=True)
class Ended:
    """The end of an attempt; `killed` if the worker was killed with it."""

    item: WorkItem
    ending: Outcome | Fault
    killed: bool = False


@contextmanager
def ray_at(address: str | None, cores: int) -> Iterator[Any]:
    """Connect to the Ray cluster at an address, or start a local one with `cores` cores.

    Raises:
        RayMissingError: if it is not installed.
        RayUnreachableError: if there is no Ray at the address.
    """
    os.environ.update(LOCAL_ENVIRONMENT if address is None else {"RAY_USAGE_STATS_ENABLED": "0"})
    try:
        ray = import_module("ray")
    except ModuleNotFoundError as error:
        raise RayMissingError(
            "back-fill needs Ray: pip install '.[backfill]' in the checkout"
        ) from error
    if address is not None:
        require_listener(address)
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    remove_abandoned(RAY_FILES)
    files = Path(tempfile.mkdtemp(prefix=f"{RAY_FILES}{os.getpid()}-"))
    try:
        if address is None:
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
            local: dict[str, Any] = {"include_dashboard": False, "num_cpus": cores}
            local |= {"object_store_memory": OBJECT_STORE, "_temp_dir": str(files)}
            ray.init(address="local", **local, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        shutil.rmtree(files, ignore_errors=True)
        where = f"at {address}" if address else "on this machine"
        why = " ".join(str(error).split())[:MAX_MESSAGE]
        raise RayUnreachableError(f"no Ray {where}: {why or type(error).__name__}") from error
    try:
        yield ray
    finally:
        ray.shutdown()
        shutil.rmtree(files, ignore_errors=True)


def require_listener(address: str) -> None:
    """Check for a listener first, since Ray tries for minutes.

    Raises:
        RayUnreachableError: if nothing listens at HOST:PORT.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise RayUnreachableError(f"a Ray address looks like 10.0.0.1:6379, not {address}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWERS_S).close()
    except (OSError, OverflowError) as error:
        raise RayUnreachableError(f"nothing listens at {address}") from error


class OwnProcess(Worker):
    """A worker in a process of its own."""

    def prepare(self, core: int | None) -> Ready | Fault:
        """Prepare the worker and the settings of its process."""
        share_one_heap()
        set_up_logging("error")
        return super().prepare(core)


class Pool:
    """A number of workers, each with at most one series."""

    def __init__(
        self,
        ray: Any,
        order: Order,
        agree: Callable[[Ready], None],
        workers: int,
        timeout_s: float,
        *,
        gpu: bool,
    ) -> None:
        """Start the workers.

        Args:
            ray: the connected Ray module.
            order: instructions for all workers.
            agree: called before a worker starts; raises an error if its results would differ.
            workers: number of workers.
            timeout_s: time limit per series in seconds, after which its worker is killed.
            gpu: whether each worker gets a GPU; otherwise each gets a core.
        """
        self._ray = ray
        self._order = order
        self._agree = agree
        self._timeout_s = timeout_s
        self._gpu = gpu
        self._members: list[_Member] = []
        self._wanted = workers
        self._starts_in_vain = 0
        self._attempts = 0
        resources = {"num_cpus": 1, "num_gpus": 1} if gpu else {"num_cpus": 1}
        self._actor = ray.remote(max_restarts=0, **resources)(OwnProcess)
        for _ in range(workers):
            self._start()

    @property
    def processes(self) -> tuple[int, ...]:
        """Process identifiers of the workers that have started."""
        return tuple(each.process for each in self._members if each.process)

    @property
    def busy(self) -> int:
        """Number of series in progress."""
        return sum(each.item is not None for each in self._members)

    @property
    def idle(self) -> int:
        """Number of workers that wait for a series."""
        return sum(each.call is None for each in self._members)

    def give(self, item: WorkItem) -> str:
        """Give a series to an idle worker; the returned token names its working folder."""
        member = next(each for each in self._members if each.call is None)
        self._attempts += 1
        member.token = f"{os.getpid()}-{self._attempts}"
        member.item = item
        member.deadline = time.monotonic() + self._timeout_s
        member.call = member.actor.process.remote(item, member.token)
        return member.token

    def wait(self, at_most_s: float) -> list[Ended]:
        """Return the attempts that have ended; wait until one has, or a worker is ready.

        Raises:
            NoWorkersError: if workers fail repeatedly before they are ready.
            WorkerDiffersError: if the results of one would differ from the others.
        """
        calls = {each.call: each for each in self._members if each.call is not None}
        if not calls:
            time.sleep(at_most_s)
            return []
        if all(each.is_late() for each in self._members):
            raise NoWorkersError(f"no worker could be started within {START_S:g} s")
        done, _ = self._ray.wait(list(calls), num_returns=1, timeout=at_most_s)
        ended = [each for call in done if (each := self._answered(calls[call])) is not None]
        now = time.monotonic()
        for member in list(self._members):
            if member.item is not None and member.call not in done and now > member.deadline:
                fault = Fault("time-out", f"the series took longer than {self._timeout_s:g} s")
                ended.append(Ended(member.item, fault, killed=True))
                self._replace(member, fault.message)
        return ended

    def _start(self) -> None:
        actor = self._actor.remote(self._order)
        self._members.append(_Member(actor, actor.where.remote()))

    def _replace(self, member: _Member, why: str) -> None:
        """Kill a worker and start another."""
        self._members.remove(member)
        self._ray.kill(member.actor)
        if member.item is None:
            self._starts_in_vain += 1
            if self._starts_in_vain >= MOST_STARTS_IN_VAIN * self._wanted:
                raise NoWorkersError(f"no worker becomes ready; the last error: {why}")
        self._start()

    def _answered(self, member: _Member) -> Ended | None:
        exceptions = self._ray.exceptions
        try:
            answer = self._ray.get(member.call)
        except exceptions.RayTaskError as error:  # a bug; its message may quote a header
            return self._lost(member, Fault("internal-fault", _kind_and_place(error)))
        except exceptions.RayError as error:
            kind = type(error).__name__
            reason = "out-of-memory" if kind == "OutOfMemoryError" else "worker-stopped"
            return self._lost(member, Fault(reason, f"the worker ended ({kind})"))
        if member.item is not None:
            ended = Ended(member.item, answer)
            member.item, member.call = None, None
            return ended
        self._prepared(member, answer)
        return None

    def _lost(self, member: _Member, fault: Fault) -> Ended | None:
        ended = None if member.item is None else Ended(member.item, fault, killed=True)
        self._replace(member, fault.message)
        return ended

    def _prepared(self, member: _Member, answer: Any) -> None:
        """Handle the message of a worker that it has a place, or is ready."""
        if not member.process:
            member.process, member.machine = answer.process, answer.machine
            member.core = None if self._gpu else self._free_core(answer.machine, answer.cores)
            member.call = member.actor.prepare.remote(member.core)
        elif isinstance(answer, Fault):
            raise NoWorkersError(f"a worker cannot start: {answer.reason}: {answer.message}")
        else:
            self._agree(answer)
            self._starts_in_vain = 0
            member.call = None

    def _free_core(self, machine: str, cores: tuple[int, ...]) -> int | None:
        """Return a core of the machine that no worker of this run uses; None if all are in use."""
        taken: dict[str, set[int | None]] = defaultdict(set)
        for each in self._members:
            taken[each.machine].add(each.core)
        return next((core for core in cores if core not in taken[machine]), None)


def _kind_and_place(error: Exception) -> str:
    """Return the class of a worker's exception and the innermost line of this code."""
    places = OUR_LINE.findall(str(error))
    where = "{}:{}".format(*places[-1]) if places else "an unknown place"
    return f"the worker raised {type(getattr(error, 'cause', error)).__name__} at {where}"


class _Member:
    """The state of a worker; `call` is its current task, None while it waits."""

    def __init__(self, actor: Any, call: Any) -> None:
        self.actor = actor
        self.call: Any = call
        self.item: WorkItem | None = None
        self.token = ""
        self.deadline = time.monotonic() + START_S
        self.process = 0
        self.machine = ""
        self.core: int | None = None

    def is_late(self) -> bool:
        """Return whether its time to become ready has expired."""
        starting = self.item is None and self.call is not None
        return starting and time.monotonic() > self.deadline
