"""Waiting for stores that notify: a consumer hears of records, a drainer makes it listen until one is there.

A consumer may be used by many threads: one of those that wait listens, for all, and the others wait for it.
In gevent and eventlet one greenlet listens and the others wait.
"""

from __future__ import annotations

import builtins
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from kombu.utils.compat import detect_environment

from celery import states
from celery.backends.pending import sets_and_singles
from celery.exceptions import TimeoutError
from celery.utils.log import get_logger

__all__ = ("AsyncBackendMixin", "BaseResultConsumer", "Drainer", "register_drainer")

logger = get_logger(__name__)

#: Environment (``default``, ``gevent``, ``eventlet``) → the class of drainer to use in it.
drainers: dict[str, type[Drainer]] = {}


def register_drainer(name: str) -> Callable[[type[Drainer]], type[Drainer]]:
    """Return a decorator that makes a class the drainer of the environment ``name``."""

    def register(cls: type[Drainer]) -> type[Drainer]:
        drainers[name] = cls
        return cls

    return register


@register_drainer("default")
class Drainer:
    """Makes a consumer listen until a promise is kept."""

    def __init__(self, result_consumer: Any) -> None:
        self.result_consumer = result_consumer
        self._is_led = False
        self._news = threading.Condition()

    def start(self) -> None:
        """Called before the first wait."""

    def stop(self) -> None:
        """Called when nobody waits any more."""

    def drain_events_until(
        self,
        p: Any,
        timeout: float | None = None,
        interval: float = 1,
        on_interval: Callable[[], Any] | None = None,
        wait: Callable[..., Any] | None = None,
    ) -> Iterator[None]:
        """Yield after each turn until the promise ``p`` is kept.

        Raises:
            socket.timeout: it is not kept within ``timeout`` seconds.
        """
        wait = wait or self.result_consumer.drain_events
        deadline = None if timeout is None else time.monotonic() + timeout
        while not p.ready:
            seconds = interval
            if deadline is not None:
                seconds = min(interval, deadline - time.monotonic())
                if seconds <= 0:
                    raise builtins.TimeoutError()
            try:
                self.wait_for(p, wait, timeout=seconds)
                yield
            except builtins.TimeoutError:
                pass
            if on_interval is not None and not p.ready:
                on_interval()

    def wait_for(self, p: Any, wait: Callable[..., Any], timeout: float | None = None) -> None:
        """Listen for a while, or let another thread that does so listen for us."""
        with self._news:
            if self._is_led and not p.ready:
                self._news.wait(timeout)
            if self._is_led or p.ready:
                return
            self._is_led = True
        try:
            wait(timeout=timeout)
        finally:
            with self._news:
                self._is_led = False
                self._news.notify_all()


class greenletDrainer(Drainer):
    """One greenlet listens for all."""

    spawn: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._greenlet: Any = None
        self._stopped = False
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Listen until stopped."""
        try:
            while not self._stopped:
                try:
                    self.result_consumer.drain_events(timeout=1)
                except builtins.TimeoutError:
                    pass
                with self._news:
                    self._news.notify_all()
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._greenlet = None
            with self._news:
                self._news.notify_all()

    def start(self) -> None:
        if self._greenlet is None:
            self._stopped = False
            self._failure = None
            self._greenlet = self.spawn(self.run)

    def stop(self) -> None:
        self._stopped = True

    def wait_for(self, p: Any, wait: Callable[..., Any], timeout: float | None = None) -> None:
        """Wait for the greenlet that listens; what ended it is raised here."""
        self.start()
        with self._news:
            if not p.ready:
                self._news.wait(timeout)
        if self._failure is not None:
            raise self._failure


@register_drainer("eventlet")
class eventletDrainer(greenletDrainer):
    def spawn(self, func: Callable[[], Any]) -> Any:
        from eventlet import sleep, spawn

        green = spawn(func)
        sleep(0)
        return green


@register_drainer("gevent")
class geventDrainer(greenletDrainer):
    def spawn(self, func: Callable[[], Any]) -> Any:
        import gevent

        green = gevent.spawn(func)
        gevent.sleep(0)
        return green


class AsyncBackendMixin:
    """Waiting with the help of ``self.result_consumer``."""

    if TYPE_CHECKING:  # what the store beside it gives
        result_consumer: Any
        _pending_messages: Any
        _pending_results: Any
        _ensure_not_eager: Callable[[], None]
        send_held: Callable[[], None]

    def iter_native(self, result: Any, no_ack: bool = True, **kwargs: Any) -> Iterator[tuple[str, Any]]:
        """Yield ``(id, record)`` of each member of a set of results as it ends."""
        self._ensure_not_eager()
        sets, single = sets_and_singles(result.results)
        yield from ((member.id, member.results) for member in sets)
        if not single:
            return
        ended: deque[Any] = deque()
        waiting: dict[str, Any] = {}
        for member in single:
            waiting[member.id] = member
            member.then(ended.append)
        for _ in self._wait_for_pending(_Group(waiting), no_ack=no_ack, **kwargs):
            yield from self._ended(ended, waiting)
        yield from self._ended(ended, waiting)

    def _ended(self, ended: deque[Any], waiting: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        while ended:
            member = ended.popleft()
            if waiting.pop(member.id, None) is not None:
                yield member.id, member._cache

    def add_pending_result(self, result: Any, weak: bool = False, start_drainer: bool = True) -> Any:
        """Hear of ``result`` from now on, if ``weak`` only for as long as somebody else holds it."""
        if start_drainer:
            self.result_consumer.drainer.start()
        with self._pending_results.lock:
            meta = self._pending_messages.take(result.id, None)  # it may have come before anybody asked for it
            if meta is None:
                is_new = result.id not in self._pending_results
                self._pending_results.add(result, weak=weak)
        if meta is not None:
            result._maybe_set_cache(meta)
        elif is_new:
            self.result_consumer.consume_from(result.id)
        return result

    def add_pending_results(self, results: Iterable[Any], weak: bool = False) -> None:
        """Hear of many results from now on."""
        self.result_consumer.drainer.start()
        for result in results:
            self.add_pending_result(result, weak=weak, start_drainer=False)

    def remove_pending_result(self, result: Any) -> Any:
        """Hear of ``result`` no more."""
        if self._pending_results.discard(result):
            self.on_result_fulfilled(result)
        return result

    def on_result_fulfilled(self, result: Any) -> None:
        self.result_consumer.cancel_for(result.id)

    def wait_for_pending(
        self, result: Any, callback: Callable[[str, Any], Any] | None = None, propagate: bool = True, **kwargs: Any
    ) -> Any:
        """Wait for one result and return its value."""
        self._ensure_not_eager()
        result.then(lambda _: None)
        for _ in self._wait_for_pending(result, **kwargs):
            pass
        return result.maybe_throw(callback=callback, propagate=propagate)

    def _wait_for_pending(
        self,
        result: Any,
        timeout: float | None = None,
        on_interval: Callable[[], Any] | None = None,
        on_message: Callable[[Any], Any] | None = None,
        **kwargs: Any,
    ) -> Iterator[None]:
        self.send_held()  # what a task waits for may be what this thread has stored itself
        return self.result_consumer._wait_for_pending(
            result, timeout=timeout, on_interval=on_interval, on_message=on_message, **kwargs
        )

    @property
    def is_async(self) -> bool:
        return True


class _Group:
    """Many results to wait for, as if they were one: ready when none is missing."""

    def __init__(self, waiting: dict[str, Any]) -> None:
        self._waiting = waiting
        self.id = next(iter(waiting))

    @property
    def on_ready(self) -> _Group:
        return self

    @property
    def ready(self) -> bool:
        return not self._waiting or all(result._cache is not None for result in list(self._waiting.values()))


class BaseResultConsumer:
    """Hears of records and hands them to the results that wait for them.

    A subclass gives ``consume_from``, ``cancel_for``, ``drain_events``, ``start`` and ``stop``, and calls
    ``on_state_change`` with each record.
    """

    def __init__(self, backend: Any, app: Any, accept: Any, pending_results: Any, pending_messages: Any) -> None:
        self.backend = backend
        self.app = app
        self.accept = accept
        self._pending_results = pending_results
        self._pending_messages = pending_messages
        #: Called with each record that arrives.
        self.on_message: Callable[[Any], Any] | None = None
        #: Where a result is put when it has ended.
        self.buckets: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        self.drainer = drainers[detect_environment()](self)
        self._listeners: list[Callable[[Any], Any]] = []

    def start(self, initial_task_id: str, **kwargs: Any) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not say how to start")

    def stop(self) -> None:
        """Hear nothing any more."""

    def drain_events(self, timeout: float | None = None) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not say how to listen")

    def consume_from(self, task_id: str) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not say how to hear of a task")

    def cancel_for(self, task_id: str) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not say how not to hear of a task any more")

    def on_after_fork(self) -> None:
        """Called in a child process: drop what belongs to the parent."""
        self.buckets.clear()
        self.buckets = WeakKeyDictionary()
        self.on_message = None
        self._listeners = []
        self.drainer = drainers[detect_environment()](self)

    def reconnect_on_error(self) -> AbstractContextManager[None]:
        """Return a context in which a lost connection is made again; the base loses none."""
        return nullcontext()

    def drain_events_until(
        self, p: Any, timeout: float | None = None, on_interval: Callable[[], Any] | None = None
    ) -> Iterator[None]:
        return self.drainer.drain_events_until(p, timeout=timeout, on_interval=on_interval)

    def _wait_for_pending(
        self,
        result: Any,
        timeout: float | None = None,
        on_interval: Callable[[], Any] | None = None,
        on_message: Callable[[Any], Any] | None = None,
        **kwargs: Any,
    ) -> Iterator[None]:
        self.on_wait_for_pending(result, timeout=timeout, **kwargs)
        if on_message is not None:
            self._listeners.append(on_message)
        try:
            yield from self.drain_events_until(result.on_ready, timeout=timeout, on_interval=on_interval)
        except builtins.TimeoutError:
            raise TimeoutError("The operation timed out.") from None
        finally:
            if on_message is not None:
                self._listeners.remove(on_message)

    def on_wait_for_pending(self, result: Any, timeout: float | None = None, **kwargs: Any) -> None:
        """Called before each wait."""

    def on_out_of_band_result(self, message: Any) -> None:
        """Called with the message of a result that nobody waits for."""
        self.on_state_change(message.payload, message)

    def on_state_change(self, meta: dict[str, Any], message: Any) -> None:
        """Hand a record on to who waits for it; keep it if nobody does."""
        for listener in (self.on_message, *self._listeners):
            if listener is not None:
                listener(meta)
        if meta["status"] not in states.READY_STATES:
            return
        with self._pending_results.lock:
            results = self._pending_results.take(meta["task_id"])
            if not results:
                self._pending_messages.put(meta["task_id"], meta)
        for result in results:
            result._maybe_set_cache(dict(meta))
            bucket = self.buckets.pop(result, None)
            if bucket is not None:
                bucket.append(result)
