"""Waiting for results in Redis: each wait has a subscribed line of its own, so threads never meet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count, repeat
from typing import TYPE_CHECKING, Any

from celery import states
from celery.backends.pending import sets_and_singles
from celery.backends.redis.listening import Listener
from celery.exceptions import TimeoutError
from celery.utils.log import get_logger

__all__ = ("Wait", "Waiting")

logger = get_logger(__name__)

#: Not to be looked around more often than this, in seconds, whatever the caller's ``interval``.
LOOK_AROUND_MIN = 0.1


class Waiting:
    """What ``RedisBackend`` knows of waiting."""

    app: Any
    if TYPE_CHECKING:  # what the rest of the backend gives
        _pending_results: Any
        _ensure_not_eager: Callable[[], None]
        _exchange: Callable[..., Any]
        decode_result: Callable[[Any], Any]
        get_key_for_task: Callable[..., Any]
        send_held: Callable[[], None]

    def wait_for_pending(
        self,
        result: Any,
        callback: Callable[[str, Any], Any] | None = None,
        propagate: bool = True,
        timeout: float | None = None,
        interval: float | None = 0.5,
        on_interval: Callable[[], Any] | None = None,
        on_message: Callable[[Any], Any] | None = None,
        no_ack: bool = True,
    ) -> Any:
        """Wait for one result and return its value; ``no_ack`` is for stores of messages."""
        self._ensure_not_eager()
        for _ in self._as_they_end([result], timeout, interval, on_interval, on_message):
            pass
        return result.maybe_throw(callback=callback, propagate=propagate)

    def iter_native(
        self,
        result: Any,
        no_ack: bool = True,
        timeout: float | None = None,
        interval: float | None = 0.5,
        on_interval: Callable[[], Any] | None = None,
        on_message: Callable[[Any], Any] | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """Yield ``(id, record)`` of each member of a set of results as it ends."""
        self._ensure_not_eager()
        sets, single = sets_and_singles(result.results)
        yield from ((member.id, member.results) for member in sets)
        yield from self._as_they_end(single, timeout, interval, on_interval, on_message)

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float | None = 0.5,
        no_ack: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> dict[str, Any]:
        """Return the record of a task when it has ended."""
        result = self.app.AsyncResult(task_id, backend=self)
        for _ in self._as_they_end([result], timeout, interval, on_interval, None):
            pass
        return result._get_task_meta()

    def get_many(
        self,
        task_ids: Iterable[str],
        timeout: float | None = None,
        interval: float | None = 0.5,
        no_ack: bool = True,
        on_message: Callable[[Any], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        max_iterations: int | None = None,
        READY_STATES: frozenset[str] = states.READY_STATES,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield ``(id, record)`` of each task as it ends; ``max_iterations`` bounds how often to look."""
        if max_iterations is not None:
            yield from super().get_many(  # type: ignore[misc]  # of BaseKeyValueStoreBackend
                task_ids, timeout, interval, no_ack, on_message, on_interval, max_iterations, READY_STATES
            )
            return
        results = [self.app.AsyncResult(task_id, backend=self) for task_id in dict.fromkeys(task_ids)]
        yield from self._as_they_end(results, timeout, interval, on_interval, on_message)

    def add_pending_result(self, result: Any, weak: bool = False, start_drainer: bool = True) -> Any:
        """Hear of ``result`` whenever somebody in this process waits for something."""
        if start_drainer:
            self._pending_results.add(result, weak=weak)
        return result

    def remove_pending_result(self, result: Any) -> Any:
        """Hear of ``result`` no more."""
        self._pending_results.discard(result)
        return result

    def _as_they_end(
        self,
        results: list[Any],
        timeout: float | None,
        interval: float | None,
        on_interval: Callable[[], Any] | None,
        on_message: Callable[[Any], Any] | None,
    ) -> Iterator[tuple[str, Any]]:
        waiting: dict[bytes, list[Any]] = {}
        for result in results:
            if result._cache is not None:
                yield result.id, result._cache
            else:
                waiting.setdefault(self.get_key_for_task(result.id), []).append(result)
        if not waiting:
            return
        self.send_held()  # it may be what this thread has stored itself
        wait = Wait(self, [*waiting, *self._keys_of_pending()], timeout)
        slice_seconds = None if on_interval is None else max(LOOK_AROUND_MIN, interval or 0.5)
        try:
            heard = wait.start()
            while True:
                for key, value in heard:
                    meta = self.decode_result(value)
                    if on_message is not None and key in waiting:
                        on_message(meta)
                    if meta["status"] not in states.READY_STATES:
                        continue
                    wait.got(key)
                    self._settle_pending(meta["task_id"], meta)
                    for result in waiting.pop(key, ()):
                        yield result.id, result._maybe_set_cache(meta)
                if not waiting:
                    break
                if wait.is_over():
                    raise TimeoutError("The operation timed out.")
                if on_interval is not None and not heard:
                    on_interval()
                heard = wait.listen(slice_seconds)
        except BaseException:
            wait.abort()
            raise
        wait.end()

    def _keys_of_pending(self) -> list[bytes]:
        """Return the keys of those that were asked for with ``then``: they are heard beside."""
        pending = self._pending_results
        return [self.get_key_for_task(task_id) for task_id in pending.ids()] if pending else []

    def _settle_pending(self, task_id: str, meta: dict[str, Any]) -> None:
        pending = self._pending_results
        if pending:
            for result in pending.take(task_id):
                result._maybe_set_cache(dict(meta))

    def _read_beside(self, keys: list[bytes]) -> list[Any]:
        """Read keys over an ordinary connection, once."""
        size = 500
        chunks = [("MGET", *keys[start : start + size]) for start in range(0, len(keys), size)]
        found = self._exchange(lambda line: line.call_many(chunks))
        return [value for values in found for value in values]


class Wait:
    """One wait for keys.  A lost connection is made again, and then all are looked at again."""

    def __init__(self, backend: Any, keys: list[bytes], timeout: float | None) -> None:
        self._backend = backend
        self._missing = dict.fromkeys(keys)
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._listener: Listener | None = None
        self._health_check = backend.connparams.get("health_check_interval") or None

    def is_over(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def got(self, key: bytes) -> None:
        """Nothing more is expected of ``key``."""
        self._missing.pop(key, None)

    def start(self) -> list[tuple[bytes, Any]]:
        """Subscribe, and return what is there already."""
        return self._persistently(self._open)

    def _open(self, is_first: bool = True) -> list[tuple[bytes, Any]]:
        line = self._backend._listeners.take(self._patience())
        try:
            # what cut the line may have been a value too large for a subscriber, so not again that way
            self._listener = Listener(line, may_read=is_first)
            return self._listener.watch(self._missing, self._backend._read_beside, self._patience())
        except BaseException:
            self._drop(line)
            raise

    def _patience(self) -> float | None:
        """Return how long one exchange may take."""
        left = self._left()
        return None if left is None else max(left, 0.1)

    def listen(self, seconds: float | None) -> list[tuple[bytes, Any]]:
        """Return ``(key, value)`` that came within ``seconds`` or until the wait is over; nothing if nothing came."""
        left = self._left()
        limits = [limit for limit in (seconds, left, self._health_check) if limit is not None]
        return self._persistently(lambda: self._hear(min(limits) if limits else None))

    def _hear(self, seconds: float | None) -> list[tuple[bytes, Any]]:
        if self._listener is None:
            return self._open(is_first=False)
        heard = self._listener.hear(seconds)
        if self._health_check is not None:
            self._listener.check_health(self._health_check)
        return heard

    def _persistently(self, step: Callable[[], list[tuple[bytes, Any]]]) -> list[tuple[bytes, Any]]:
        backend = self._backend
        policy = backend.retry_policy
        pauses = _pauses(policy)
        for attempt in count():
            try:
                return step()
            except backend.connection_errors as error:
                self._drop()
                if self.is_over():
                    return []
                if not backend._worth_retrying(error) or _is_enough(attempt, policy):
                    raise
                self._pause(next(pauses), error)
                step = _again(self)
        raise AssertionError("count() has no end")

    def _pause(self, seconds: float, error: BaseException) -> None:
        logger.warning("Lost the connection to Redis while waiting for results, again in %ss: %s", seconds, error)
        left = self._left()
        time.sleep(seconds if left is None else min(seconds, left))

    def _drop(self, line: Any = None) -> None:
        """Let go of a line that is of no use any more."""
        line = line if line is not None else self._listener and self._listener.line
        self._listener = None
        if line is not None:
            line.close()
            self._backend._listeners.give(line)

    def end(self) -> None:
        """Unsubscribe and give the line back."""
        listener = self._listener
        if listener is None:
            return
        try:
            listener.unwatch(list(listener.channels))
        except self._backend.connection_errors:
            pass  # then nothing is subscribed
        self._listener = None
        self._backend._listeners.give(listener.line)

    def abort(self) -> None:
        """End without a word: the line is closed, which unsubscribes too."""
        self._drop()


def _again(wait: Wait) -> Callable[[], list[tuple[bytes, Any]]]:
    return lambda: wait._open(is_first=False)


def _is_enough(attempt: int, policy: dict[str, Any]) -> bool:
    return policy.get("max_retries") is not None and attempt >= policy["max_retries"]


def _pauses(policy: dict[str, Any]) -> Iterator[float]:
    start, step, most = policy["interval_start"], policy["interval_step"], policy["interval_max"]
    if not step:
        return repeat(start)
    growing = (start + number * step for number in range(max(0, int((most - start) / step)) + 1))
    return chain(growing, repeat(most))
