"""A store for results, without the waiting: records, groups, retries."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any

from kombu.utils.functional import LRUCache
from kombu.utils.url import maybe_sanitize_url

from celery import states
from celery._state import current_app, get_current_task
from celery.backends.chords import Chords
from celery.backends.codec import Codec
from celery.backends.outcomes import Outcomes
from celery.backends.owing import Owed
from celery.backends.pending import PendingResults
from celery.exceptions import BackendGetMetaError, BackendStoreError, TimeoutError
from celery.protocol.result import make_meta
from celery.utils.collections import BufferMap
from celery.utils.time import get_exponential_backoff_interval

__all__ = ("Backend", "first_line", "may_come_late", "outlasts", "seconds_left", "unpickle_backend", "within")

#: How many records that nobody waits for yet are kept, for stores whose records are read once.
MESSAGE_BUFFER_MAX = 8192


#: When whoever asks now wants to have given up, on the monotonic clock.
_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


@contextmanager
def within(deadline: float | None) -> Iterator[None]:
    """Have what is asked of stores here tried again until ``deadline`` at the latest, on the monotonic clock."""
    token = _deadline.set(deadline)
    try:
        yield
    finally:
        _deadline.reset(token)


def seconds_left() -> float | None:
    """Return the seconds until the deadline that `within` has set, None if there is none."""
    deadline = _deadline.get()
    return None if deadline is None else deadline - time.monotonic()


def unpickle_backend(cls: type[Backend], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Backend:
    """Return a backend of the current app; the other half of ``Backend.__reduce__``."""
    return cls(*args, app=current_app._get_current_object(), **kwargs)  # type: ignore[misc]  # args are without it


class _NoCache(dict[Any, Any]):
    """Forgets at once."""

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    update = setdefault = lambda self, *args, **kwargs: None


class Backend(Codec, Outcomes, Chords):
    """A store for results.

    A store of your own subclasses ``BaseBackend`` and gives ``_store_result``, ``_get_task_meta_for`` and ``_forget``
    (``_save_group``, ``_restore_group``, ``_delete_group`` for groups); or ``KeyValueStoreBackend`` and gives ``get``,
    ``set``, ``delete``, ``mget``.
    """

    READY_STATES = states.READY_STATES
    UNREADY_STATES = states.UNREADY_STATES
    EXCEPTION_STATES = states.EXCEPTION_STATES

    TimeoutError = TimeoutError

    url: str | None = None
    #: Seconds for which records are kept; None or 0 is for ever.
    expires: Any = None
    #: The settings ``result_backend_...`` about doing again what failed.
    always_retry: bool = False
    max_retries: float = float("inf")
    #: A store that is away, and took longer than that to say so, is not tried again.
    retry_for_seconds: float = float("inf")
    base_sleep_between_retries_ms: float = 10
    max_sleep_between_retries_ms: float = 10000
    #: Whether all threads may use one object.
    thread_safe: bool = False

    #: Seconds between two looks; None leaves it to the caller.
    subpolling_interval: float | None = None
    #: Whether many results can be waited for at once.
    supports_native_join: bool = False
    #: Whether records end by themselves; if not, ``celery.backend_cleanup`` deletes the old.
    supports_autoexpire: bool = False
    #: Whether failures can expire at another time than the rest.
    supports_failure_expires: bool = False
    #: Whether records survive a restart of the store.
    persistent: bool = True

    retry_policy = {"max_retries": 20, "interval_start": 0, "interval_step": 1, "interval_max": 1}

    def __init__(
        self,
        app: Any,
        serializer: str | None = None,
        max_cached_results: int | None = None,
        accept: Iterable[str] | None = None,
        expires: float | timedelta | None = None,
        expires_type: Callable[[float], Any] | None = None,
        url: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.app = app
        conf = app.conf
        self.url = url
        self._prepare_codec(serializer, accept)
        cached = max_cached_results or conf.result_cache_max
        self._cache = _NoCache() if cached == -1 else LRUCache(limit=cached)
        self.expires = self.prepare_expires(expires, expires_type)
        self.always_retry = conf.get("result_backend_always_retry", False)
        self.max_sleep_between_retries_ms = conf.get("result_backend_max_sleep_between_retries_ms", 10000)
        self.base_sleep_between_retries_ms = conf.get("result_backend_base_sleep_between_retries_ms", 10)
        self.max_retries = conf.get("result_backend_max_retries", float("inf"))
        self.thread_safe = conf.get("result_backend_thread_safe", False)
        self._pending_results = PendingResults()
        self._pending_messages = BufferMap(MESSAGE_BUFFER_MAX)
        self._owing = threading.local()
        self._shared_debts: Owed | None = None

    def __reduce__(self, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> tuple[Any, ...]:
        return unpickle_backend, (self.__class__, args, kwargs or {})

    def as_uri(self, include_password: bool = False) -> str:
        """Return the URL of the store, with its password masked."""
        url = self.url or ""
        url = url if include_password else maybe_sanitize_url(url)
        return url[:-1] if url.endswith(":///") else url

    def prepare_expires(self, value: Any, type: Callable[[float], Any] | None = None) -> Any:
        """Return ``value``, or the setting ``result_expires``, in seconds."""
        if value is None:
            value = self.app.conf.result_expires
        if isinstance(value, timedelta):
            value = value.total_seconds()
        return type(value) if value is not None and type is not None else value

    def prepare_persistent(self, enabled: bool | None = None) -> bool:
        """Return ``enabled``, or the setting ``result_persistent``, or what this store does by itself."""
        if enabled is not None:
            return enabled
        configured = self.app.conf.result_persistent
        return self.persistent if configured is None else configured

    # -- one record

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """Store the state of a task, and return ``result`` as it was stored.

        Raises:
            BackendStoreError: the store failed, and all retries too (``result_backend_always_retry``).
        """
        result = self.encode_result(result, state)

        def store() -> None:
            self._retried(
                lambda: self._store_result(task_id, result, state, traceback, request=request, **kwargs),
                lambda error: BackendStoreError(
                    f"Cannot store state {state} of task {task_id}: {first_line(error)}", state=state, task_id=task_id
                ),
            )

        self._write(store, lambda: len(self.encode(result)))
        return result

    def _write(self, store: Callable[[], Any], size: Callable[[], int]) -> None:
        """Store a record, or keep it if the store is away."""
        self.do_or_owe(store, size)

    def do_or_owe(self, job: Callable[[], Any], size: Callable[[], int] = lambda: 0) -> None:
        """Do ``job()``; a worker's slot keeps it for later if the store is away.  It may be done twice.

        ``size()`` is about how many bytes it takes meanwhile.
        """
        owed: Owed | None = getattr(self._owing, "owed", None)
        if owed is None:
            job()
        else:
            owed.store(job, size)

    def get_task_meta(self, task_id: str, cache: bool = True) -> dict[str, Any]:
        """Return the record of a task; one with state PENDING if there is none.

        Raises:
            BackendGetMetaError: the store failed, and all retries too (``result_backend_always_retry``).
        """
        self._ensure_not_eager()
        if cache:
            try:
                return self._cache[task_id]
            except KeyError:
                pass
        meta = self._retried(
            lambda: self._get_task_meta_for(task_id),
            lambda error: BackendGetMetaError(
                f"Cannot read the record of task {task_id}: {first_line(error)}", task_id=task_id
            ),
        )
        if cache and meta.get("status") == states.SUCCESS:
            self._cache[task_id] = meta
        return meta

    def get_task_metas(self, task_ids: list[str]) -> dict[str, dict[str, Any]]:
        """Return the records of many tasks, as far as they are there."""
        return {task_id: self.get_task_meta(task_id) for task_id in task_ids}

    def _retried(self, operation: Callable[[], Any], final: Callable[[Exception], Exception]) -> Any:
        """Do it; with ``always_retry`` again and again, while the error allows, and then raise ``final(error)``."""
        if not self.always_retry:
            return operation()
        retries, began = 0, time.monotonic()
        while True:
            try:
                return operation()
            except Exception as error:
                if not self.exception_safe_to_retry(error):
                    raise
                seconds, left = time.monotonic() - began, seconds_left()
                hangs = seconds > self.retry_for_seconds and self.is_passing_trouble(error)
                is_late = hangs or (left is not None and left <= 0)
                if retries >= self.max_retries or is_late:
                    raise final(error) from error
                self.on_backend_retryable_error(error)
                self._sleep(self._pause_before(retries))
                retries += 1

    def _pause_before(self, retry: int) -> float:
        milliseconds = get_exponential_backoff_interval(
            self.base_sleep_between_retries_ms, min(retry, 30), self.max_sleep_between_retries_ms, True
        )
        return milliseconds / 1000

    def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Whether it may help to try again after ``exc``; each store knows its own errors."""
        return False

    def is_passing_trouble(self, exc: BaseException) -> bool:
        """Whether the store might take later what it did not take now."""
        if isinstance(exc, BackendStoreError) and exc.__cause__ is not None:  # all retries have failed
            exc = exc.__cause__
        return isinstance(exc, Exception) and self.exception_safe_to_retry(exc)

    def on_backend_retryable_error(self, exc: Exception) -> None:
        """Called before each new try."""

    def defer_confirmations(self) -> None:
        """Allow ``store_result``, in this thread, to return before the record is safe; see ``flush``."""
        if getattr(self._owing, "owed", None) is None:
            self._owing.owed = Owed(self)

    def share_debts(self, is_sharing: bool) -> None:
        """In a greenlet that ends with its task: keep what the store does not take with what the others owe, or, with
        false, raise what it says, once all tries have failed."""
        if is_sharing and self._shared_debts is None:
            self._shared_debts = Owed(self)
        self._owing.owed = self._shared_debts if is_sharing else None

    def send_held(self) -> None:
        """Send what a store of this thread held back to go with others, without waiting for an answer."""

    def flush(self) -> None:
        """Wait until all that this thread stored is confirmed.

        Raises:
            BackendStoreError: something was refused.
        """
        owed: Owed | None = getattr(self._owing, "owed", None)
        if owed is not None:
            owed.flush()

    def try_flush(self) -> None:
        """Do as `flush`, but do not wait for a store that is away: what it has not taken stays for the next time."""
        owed: Owed | None = getattr(self._owing, "owed", None)
        if owed is not None:
            owed.try_flush()

    def get_state(self, task_id: str) -> str:
        return self.get_task_meta(task_id)["status"]

    get_status = get_state

    def get_traceback(self, task_id: str) -> str | None:
        return self.get_task_meta(task_id).get("traceback")

    def get_result(self, task_id: str) -> Any:
        return self.get_task_meta(task_id).get("result")

    def get_children(self, task_id: str) -> Any:
        return self.get_task_meta(task_id).get("children")

    def task_result_exists(self, task_id: str) -> bool:
        """Whether there is a record of the task."""
        return self._get_task_meta_for(task_id)["status"] != states.PENDING

    def is_cached(self, task_id: str) -> bool:
        return task_id in self._cache

    def forget(self, task_id: str) -> None:
        """Delete the record of a task."""
        self._cache.pop(task_id, None)
        self._forget(task_id)

    def _forget(self, task_id: str) -> None:
        raise NotImplementedError("backend does not implement forget.")

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not say how to store a result")

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__name__} does not say how to read a result")

    def reload_task_result(self, task_id: str) -> None:
        """Read the record of a task into the cache, again."""
        self._cache[task_id] = self.get_task_meta(task_id, cache=False)

    def current_task_children(self, request: Any = None) -> list[Any] | None:
        """Return the results of the tasks that the current task has called, as tuples; None outside of tasks."""
        if request is None:
            request = getattr(get_current_task(), "request", None)
            if request is None:
                return None
        children = getattr(request, "children", None)
        return [child.as_tuple() for child in children] if children else []

    def _make_meta(
        self, task_id: str, result: Any, state: str, traceback: Any, request: Any, children: Any = None
    ) -> dict[str, Any]:
        """Return the record to store."""
        return make_meta(
            task_id,
            result,
            state,
            traceback=traceback,
            children=self.current_task_children(request) if children is None else children,
            date_done=self._moment().isoformat() if state in states.READY_STATES else None,
            request=request,
            extended=self.app.conf.result_extended,
        )

    def _moment(self) -> datetime:
        """Return when that happened which is to be stored: now, or, if the store was away, a while ago."""
        owed: Owed | None = getattr(self._owing, "owed", None)
        return owed.as_of if owed is not None and owed.as_of is not None else self.app.now()

    # -- groups

    def save_group(self, group_id: str, result: Any) -> Any:
        """Store which tasks a group has."""
        return self._save_group(group_id, result)

    def restore_group(self, group_id: str, cache: bool = True) -> Any:
        """Return the group that was saved, or None."""
        meta = self.get_group_meta(group_id, cache=cache)
        return meta["result"] if meta else None

    def get_group_meta(self, group_id: str, cache: bool = True) -> dict[str, Any] | None:
        """Return ``{"result": group}``, or None."""
        if cache:
            try:
                return self._cache[group_id]
            except KeyError:
                pass
        meta = self._restore_group(group_id)
        if cache and meta is not None:
            self._cache[group_id] = meta
        return meta

    def reload_group_result(self, group_id: str) -> None:
        """Read a group into the cache, again."""
        self._cache[group_id] = self.get_group_meta(group_id, cache=False)

    def delete_group(self, group_id: str) -> Any:
        """Forget which tasks a group has."""
        self._cache.pop(group_id, None)
        return self._delete_group(group_id)

    def _save_group(self, group_id: str, result: Any) -> Any:
        raise NotImplementedError("backend does not implement save_group.")

    def _restore_group(self, group_id: str) -> Any:
        raise NotImplementedError("backend does not implement restore_group.")

    def _delete_group(self, group_id: str) -> Any:
        raise NotImplementedError("backend does not implement delete_group.")

    # -- hooks

    def cleanup(self) -> None:
        """Delete what has expired, where the store does not do so by itself."""

    def process_cleanup(self) -> None:
        """Called when a task has ended in a worker; stores that hold a connection per task close it here."""

    def on_task_call(self, producer: Any, task_id: str) -> Any:
        """Called before a task is sent, so that its result finds its way back."""
        return {}

    def _ensure_not_eager(self) -> None:
        if self.app.conf.task_always_eager and not self.app.conf.task_store_eager_result:
            warnings.warn(
                "task_always_eager is set and task_store_eager_result is not: the store never learns of this result.",
                RuntimeWarning,
                stacklevel=4,
            )


def first_line(error: Exception) -> str:
    """Return what ``error`` says, without the pages that drivers of databases add."""
    return str(error).partition("\n")[0]


def may_come_late(task_id: str, state: str, request: Any) -> bool:
    """Whether the writer may be a loser: somebody else may have ended the task before.

    So it is after a redelivery, where the one who writes is not the one who runs the task, and with RETRY: the next run
    was sent before this record, and may be over.
    """
    if state == states.RETRY:
        return True
    if request is not None:
        delivery = getattr(request, "delivery_info", None)
        if delivery and delivery.get("redelivered"):
            return True
        if state == states.SUCCESS:
            return False
    running = get_current_task()
    return running is None or getattr(running.request, "id", None) != task_id


def outlasts(stored: str, late: str) -> bool:
    """Whether a record whose state is ``stored`` stays when one of the state ``late`` comes late."""
    if late == states.RETRY:
        return stored in states.READY_STATES
    return stored == states.SUCCESS or (late == states.REVOKED and stored == states.FAILURE)
