"""The shared consumer of results: Celery's public way to wait, for those who drive it themselves.

``RedisBackend`` itself waits with a line for each wait (see ``waiting``).
"""

from __future__ import annotations

import threading
import time
from typing import Any

from celery.backends.asynchronous import BaseResultConsumer
from celery.backends.redis.listening import Listener

__all__ = ("ResultConsumer",)


class ResultConsumer(BaseResultConsumer):
    """One subscribed line for all results that were given to ``consume_from``."""

    #: The keys that are listened for.
    subscribed_to: set[bytes] = set()
    _listener: Listener | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.subscribed_to = set()
        self._lock = threading.RLock()

    def start(self, initial_task_id: str, **kwargs: Any) -> None:
        """Begin with one task."""
        self.consume_from(initial_task_id)

    def consume_from(self, task_id: str) -> None:
        """Hear of a task from now on; what is known of it already is handed on at once."""
        key = self.backend.get_key_for_task(task_id)
        with self._lock:
            if key not in self.subscribed_to:
                self.subscribed_to.add(key)
                self._hand_on(self._watch([key]))

    def cancel_for(self, task_id: str) -> None:
        """Hear of a task no more."""
        key = self.backend.get_key_for_task(task_id)
        with self._lock:
            if key in self.subscribed_to:
                self.subscribed_to.discard(key)
                if self._listener is not None:
                    self._listener.unwatch([key])

    def drain_events(self, timeout: float | None = None) -> None:
        """Wait for something to come, for ``timeout`` seconds, and hand it on."""
        with self._lock:
            if self._listener is None:
                if not self.subscribed_to:
                    if timeout:
                        time.sleep(timeout)
                    return
                heard = self._watch(list(self.subscribed_to))
            else:
                heard = self._hear(timeout)
            self._hand_on(heard)

    def _watch(self, keys: list[bytes]) -> list[tuple[bytes, Any]]:
        try:
            if self._listener is None:
                keys = list(self.subscribed_to)
                self._listener = Listener(self.backend._open_line())
            return self._listener.watch(keys, self.backend._read_beside)
        except self.backend.connection_errors:
            return self._reconnect()

    def _hear(self, timeout: float | None) -> list[tuple[bytes, Any]]:
        try:
            return self._listener.hear(timeout)  # type: ignore[union-attr]  # there is one
        except self.backend.connection_errors:
            return self._reconnect()

    def _reconnect(self) -> list[tuple[bytes, Any]]:
        def again() -> list[tuple[bytes, Any]]:
            self._close()
            listener = Listener(self.backend._open_line(), may_read=False)
            found = listener.watch(list(self.subscribed_to), self.backend._read_beside)
            self._listener = listener
            return found

        return self.backend.ensure(again, ())

    def _hand_on(self, heard: list[tuple[bytes, Any]]) -> None:
        for key, value in heard:
            if key in self.subscribed_to:
                message = {"type": "message", "channel": key, "data": value}
                self.on_state_change(self.backend.decode_result(value), message)

    def on_state_change(self, meta: dict[str, Any], message: Any) -> None:
        super().on_state_change(meta, message)
        if meta["status"] in self.backend.READY_STATES:
            self.cancel_for(meta["task_id"])

    def on_wait_for_pending(self, result: Any, timeout: float | None = None, **kwargs: Any) -> None:
        """Look at once: it may have ended before."""
        meta = self.backend.get_task_meta(result.id, cache=False)
        if meta["status"] in self.backend.READY_STATES:
            self.on_state_change(meta, None)

    def on_after_fork(self) -> None:
        listener, self._listener = self._listener, None
        self._lock = threading.RLock()
        if listener is not None:
            listener.line.abandon()

    def _close(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.line.close()

    def stop(self) -> None:
        with self._lock:
            self._close()
            self.subscribed_to.clear()
