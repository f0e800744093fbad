"""Waiting for stores that cannot notify: look, sleep, look again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from celery import states
from celery.backends.backend import within
from celery.backends.pending import sets_and_singles
from celery.exceptions import ImproperlyConfigured, TimeoutError

__all__ = ("SyncBackendMixin", "pauses")

#: Seconds before the second look.
FIRST_PAUSE = 0.005


def pauses(interval: float) -> Iterator[float]:
    """Yield seconds to wait between two looks: short at first, for tasks that are nearly done, then ``interval``."""
    pause = min(FIRST_PAUSE, interval)
    while True:
        yield pause
        pause = min(2 * pause, interval)


class SyncBackendMixin:
    """What a backend does that must look again and again."""

    if TYPE_CHECKING:  # what the store beside it gives
        _ensure_not_eager: Callable[[], None]
        get_many: Callable[..., Iterator[tuple[str, Any]]]
        get_task_meta: Callable[[str], dict[str, Any]]

    def iter_native(
        self,
        result: Any,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Callable[[Any], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """Yield ``(id, record)`` of each member of a set of results as it ends."""
        self._ensure_not_eager()
        sets, single = sets_and_singles(result.results)
        yield from ((member.id, member.results) for member in sets)
        yield from self._iter_singles(single, timeout, interval, no_ack, on_message, on_interval)

    def _iter_singles(
        self,
        results: list[Any],
        timeout: float | None,
        interval: float,
        no_ack: bool,
        on_message: Callable[[Any], Any] | None,
        on_interval: Callable[[], Any] | None,
    ) -> Iterator[tuple[str, Any]]:
        waiting = {}
        for result in results:
            if result._cache is not None:
                yield result.id, result._cache
            else:
                waiting[result.id] = result
        if not waiting:
            return
        for task_id, meta in self.get_many(
            set(waiting),
            timeout=timeout,
            interval=interval,
            no_ack=no_ack,
            on_message=on_message,
            on_interval=on_interval,
        ):
            yield task_id, waiting[task_id]._maybe_set_cache(meta)

    def wait_for_pending(
        self,
        result: Any,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Callable[[Any], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        callback: Callable[[str, Any], Any] | None = None,
        propagate: bool = True,
    ) -> Any:
        """Wait for one result and return its value."""
        self._ensure_not_eager()
        if on_message is not None:
            raise ImproperlyConfigured("Backend does not support on_message callback")
        meta = self.wait_for(result.id, timeout=timeout, interval=interval, on_interval=on_interval, no_ack=no_ack)
        result._maybe_set_cache(meta)
        return result.maybe_throw(propagate=propagate, callback=callback)

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> dict[str, Any]:
        """Return the record of a task when it has ended.

        Raises:
            TimeoutError: it has not ended within ``timeout`` seconds.
        """
        self._ensure_not_eager()
        deadline = None if timeout is None else time.monotonic() + timeout
        for pause in pauses(interval):
            with within(deadline):
                meta = self.get_task_meta(task_id)
            if meta["status"] in states.READY_STATES:
                return meta
            if on_interval is not None:
                on_interval()
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("The operation timed out.")
            time.sleep(min(pause, left))
        raise AssertionError("pauses() has no end")

    def add_pending_result(self, result: Any, weak: bool = False) -> Any:
        """Do nothing but return ``result``: whoever waits will look himself."""
        return result

    def remove_pending_result(self, result: Any) -> Any:
        return result

    @property
    def is_async(self) -> bool:
        return False
