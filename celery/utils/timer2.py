"""A timer with a thread of its own, for workers without an event loop."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from threading import TIMEOUT_MAX
from typing import Any

from kombu.asynchronous.timer import Entry, to_timestamp
from kombu.asynchronous.timer import Timer as Schedule

from celery.utils.log import get_logger

__all__ = ("Entry", "Schedule", "Timer", "to_timestamp")

logger = get_logger(__name__)

TIMER_DEBUG = os.environ.get("TIMER_DEBUG")


class Timer(threading.Thread):
    """Runs what is due; started by the first entry."""

    Entry = Entry
    Schedule = Schedule

    running: bool = False
    on_tick: Callable[[float], Any] | None = None

    _timer_count = count(1)

    def __init__(
        self,
        schedule: Any = None,
        on_error: Callable[[Exception], Any] | None = None,
        on_tick: Callable[[float], Any] | None = None,
        on_start: Callable[[Timer], Any] | None = None,
        max_interval: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.schedule = schedule or self.Schedule(on_error=on_error, max_interval=max_interval)
        self.scheduler: Iterator[Any] = iter(self.schedule)
        self.on_start = on_start
        self.on_tick = on_tick or self.on_tick
        self.mutex = threading.Lock()
        self.not_empty = threading.Condition(self.mutex)
        self.daemon = True
        self.name = f"Timer-{next(self._timer_count)}"
        self._has_news = False
        self.__is_shutdown = threading.Event()
        self.__is_stopped = threading.Event()

    def _next_entry(self) -> float:
        with self.not_empty:
            delay, entry = next(self.scheduler)
            if entry is None:
                if delay is None:
                    self.not_empty.wait(1.0)
                return delay  # type: ignore[no-any-return]  # kombu has no stubs
        return self.schedule.apply_entry(entry)  # type: ignore[no-any-return]

    __next__ = next = _next_entry

    def _wait(self, seconds: float) -> None:
        """Sleep until there is a new entry, that may be due sooner, or the timer is stopped."""
        with self.not_empty:
            if not self._has_news and not self.__is_shutdown.is_set():
                self.not_empty.wait(seconds)
            self._has_news = False

    def _wake(self) -> None:
        # the handler of a signal may run in code that holds the lock; then the thread wakes up by itself
        if self.mutex.acquire(timeout=0.1):
            try:
                self.not_empty.notify_all()
            finally:
                self.mutex.release()

    def run(self) -> None:
        try:
            self.running = True
            self.scheduler = iter(self.schedule)
            while not self.__is_shutdown.is_set():
                delay = self._next_entry()
                if delay:
                    if self.on_tick:
                        self.on_tick(delay)
                    self._wait(delay)
            try:
                self.__is_stopped.set()
            except TypeError:  # the interpreter is going down
                pass
        except Exception as error:  # without its timer a worker is no worker
            logger.error("Thread Timer crashed: %r", error, exc_info=True)
            sys.stderr.flush()
            os._exit(1)

    def stop(self) -> None:
        """End the thread and wait for it."""
        self.__is_shutdown.set()
        if self.running:
            if threading.current_thread() is self:
                return  # the loop ends when this entry is done
            self._wake()
            self.__is_stopped.wait()
            self.join(TIMEOUT_MAX)
            self.running = False

    def ensure_started(self) -> None:
        """Start the thread unless it runs."""
        if not self.running and not self.is_alive():
            if self.on_start:
                self.on_start(self)
            self.start()

    def _do_enter(self, meth: str, *args: Any, **kwargs: Any) -> Any:
        self.ensure_started()
        with self.mutex:
            entry = getattr(self.schedule, meth)(*args, **kwargs)
            self._has_news = True
            self.not_empty.notify()
            return entry

    def enter(self, entry: Any, eta: Any, priority: int | None = None) -> Any:
        return self._do_enter("enter_at", entry, eta, priority=priority)

    def call_at(self, *args: Any, **kwargs: Any) -> Any:
        return self._do_enter("call_at", *args, **kwargs)

    def enter_after(self, *args: Any, **kwargs: Any) -> Any:
        return self._do_enter("enter_after", *args, **kwargs)

    def call_after(self, *args: Any, **kwargs: Any) -> Any:
        return self._do_enter("call_after", *args, **kwargs)

    def call_repeatedly(self, *args: Any, **kwargs: Any) -> Any:
        return self._do_enter("call_repeatedly", *args, **kwargs)

    def exit_after(self, secs: float, priority: int = 10) -> None:
        """End the process after ``secs`` seconds."""
        self.call_after(secs, sys.exit, priority)

    def cancel(self, tref: Any) -> None:
        tref.cancel()

    def clear(self) -> None:
        self.schedule.clear()

    def empty(self) -> bool:
        return not len(self)

    def __len__(self) -> int:
        return len(self.schedule)

    def __bool__(self) -> bool:
        """A timer without entries is a timer."""
        return True

    __nonzero__ = __bool__

    @property
    def queue(self) -> Any:
        """The entries, in order."""
        return self.schedule.queue
