"""What this worker process holds: requests by stage, revoked ids, and counters.

A request moves received (``requests``) → reserved or scheduled → active → gone.
"""

from __future__ import annotations

import os
import platform
import shelve
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pickle import HIGHEST_PROTOCOL, dumps, loads
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from celery import __version__
from celery.exceptions import WorkerShutdown, WorkerTerminate
from celery.utils.collections import LimitedSet

if TYPE_CHECKING:
    from celery.worker.request import Request

__all__ = (
    "SOFTWARE_INFO",
    "reserved_requests",
    "active_requests",
    "total_count",
    "revoked",
    "task_reserved",
    "maybe_shutdown",
    "task_accepted",
    "task_ready",
    "Persistent",
)

SOFTWARE_INFO = {
    "sw_ident": "py-celery",
    "sw_ver": __version__,
    "sw_sys": platform.system(),
}

#: How many revoked ids are remembered, and for how many seconds.
REVOKES_MAX = int(os.environ.get("CELERY_WORKER_REVOKES_MAX", 50000))
REVOKE_EXPIRES = float(os.environ.get("CELERY_WORKER_REVOKE_EXPIRES", 10800))

#: How many ids of tasks that ended well are remembered, and for how many seconds.
SUCCESSFUL_MAX = int(os.environ.get("CELERY_WORKER_SUCCESSFUL_MAX", 1000))
SUCCESSFUL_EXPIRES = float(os.environ.get("CELERY_WORKER_SUCCESSFUL_EXPIRES", 10800))

#: Every request of this worker by task id.
requests: dict[str, Request] = {}

#: Requests that wait for a slot in the pool, run in it, or wait for their time.
reserved_requests: WeakSet[Request] = WeakSet()
active_requests: WeakSet[Request] = WeakSet()
scheduled_requests: WeakSet[Request] = WeakSet()

#: Tasks accepted since the start: by name, and in all (a list, so that it can be shared).
total_count: Counter[str] = Counter()
all_total_count = [0]

revoked: LimitedSet = LimitedSet(maxlen=REVOKES_MAX, expires=REVOKE_EXPIRES)
revoked_stamps: dict[str, Any] = {}
#: Kept where `worker_deduplicate_successful_tasks` is on (``keeps_successful``): nobody else wants them.
successful_requests: LimitedSet = LimitedSet(maxlen=SUCCESSFUL_MAX, expires=SUCCESSFUL_EXPIRES)
keeps_successful = False

#: ``None`` to go on, else the exit code with which to stop warm or at once.
should_stop: int | bool | None = None
should_terminate: int | bool | None = None


def reset_state() -> None:
    """Forget everything, as a worker does that starts again in the same process."""
    global should_stop, should_terminate
    should_stop = should_terminate = None
    for store in (
        requests,
        reserved_requests,
        active_requests,
        scheduled_requests,
        total_count,
        revoked,
        revoked_stamps,
        successful_requests,
    ):
        store.clear()
    all_total_count[:] = [0]


def merge_revoked(task_ids: Iterable[str]) -> None:
    """Add the ids that another worker, or an earlier run, has revoked."""
    for task_id in task_ids:
        revoked.add(task_id)


def merge_revoked_stamps(stamps: Mapping[str, Iterable[Any]]) -> None:
    """Add values of stamps whose tasks are revoked."""
    for header, values in stamps.items():
        known = revoked_stamps.get(header) or []
        if not isinstance(known, (list, tuple, set, frozenset)):
            known = [known]
        revoked_stamps[header] = list(dict.fromkeys([*known, *values]))


def maybe_shutdown() -> None:
    """Raise `WorkerTerminate` or `WorkerShutdown` with its exit code if a signal handler asked for it."""
    if should_terminate is not None and should_terminate is not False:
        raise WorkerTerminate(should_terminate)
    if should_stop is not None and should_stop is not False:
        raise WorkerShutdown(should_stop)


def task_reserved(request: Request) -> None:
    """Note that the request was accepted and waits for a slot."""
    requests[request.id] = request
    reserved_requests.add(request)
    if scheduled_requests:
        scheduled_requests.discard(request)


def task_scheduled(request: Request) -> None:
    """Note that the request waits for its time in this worker."""
    requests[request.id] = request
    scheduled_requests.add(request)
    reserved_requests.discard(request)
    active_requests.discard(request)


def task_accepted(request: Request, _all_total_count: list[int] | None = None) -> None:
    """Note that a slot has begun to run the request."""
    requests[request.id] = request
    active_requests.add(request)
    total_count[request.name] += 1
    (all_total_count if _all_total_count is None else _all_total_count)[0] += 1


def task_ready(request: Request, successful: bool = False) -> None:
    """Forget the request: it ended, or it was given back."""
    if successful and keeps_successful:
        successful_requests.add(request.id)
    # A redelivery of the same id may have taken the place meanwhile.
    if requests.get(request.id) is request:
        del requests[request.id]
    active_requests.discard(request)
    reserved_requests.discard(request)
    if scheduled_requests:
        scheduled_requests.discard(request)
    on_over = getattr(request, "on_over", None)
    if on_over is not None:
        on_over(request)


class Persistent:
    """The part of the state that outlives the process: the logical clock and the revoked ids.

    It is kept in a `shelve` file named ``filename``; call `merge` after the start and `save` now and at the end.
    """

    storage = shelve
    protocol = HIGHEST_PROTOCOL if HIGHEST_PROTOCOL < 4 else 4
    compress = staticmethod(zlib.compress)
    decompress = staticmethod(zlib.decompress)

    def __init__(self, state: Any, filename: str, clock: Any = None) -> None:
        self.state = state
        self.filename = filename
        self.clock = clock
        self._db: Any = None
        self.merge()

    def open(self) -> Any:
        return self.storage.open(self.filename, protocol=self.protocol, writeback=True)

    @property
    def db(self) -> Any:
        if self._db is None:
            self._db = self.open()
        return self._db

    def merge(self) -> None:
        """Take over what the file knows."""
        self._merge_revoked(self.db)
        if self.clock:
            self.db["clock"] = self.clock.adjust(self.db.get("clock") or 0)

    def sync(self) -> None:
        """Put the present state into the (still open) store."""
        revoked_ids = self.state.revoked
        revoked_ids.purge()
        self.db["zrevoked"] = self.compress(dumps(revoked_ids, protocol=self.protocol))
        self.db["__proto__"] = 3
        if self.clock:
            self.db["clock"] = self.clock.forward()

    def save(self) -> None:
        self.sync()
        self.db.sync()
        self.close()

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _merge_revoked(self, db: Any) -> None:
        packed = db.get("zrevoked")
        if packed:
            self.state.revoked.update(loads(self.decompress(packed)))
        elif db.get("revoked"):  # Upstream: files older than protocol 3 hold the set itself
            self.state.revoked.update(db["revoked"])
