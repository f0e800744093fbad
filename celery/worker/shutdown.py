"""How a worker ends: no more messages, then what runs, then the books, then the parts from the last to the first.

A warm shutdown waits for what runs, and a cold one ends it; a soft one is a cold one that waits a little before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from celery.utils.log import worker_logger as logger
from celery.utils.stopping import stopping
from celery.utils.threads import bound_open_broker_sockets, default_socket_timeout
from celery.worker import loops, state

__all__ = ("Shutdown",)

#: Seconds for which a broker that does not answer may hold up the shutdown.
SHUTDOWN_SOCKET_TIMEOUT = 3.0
#: Seconds for which acknowledgements wait for a result store then; what is not acknowledged is delivered again.
BOOKS_SECONDS = 1.0


class Shutdown:
    """Ends one worker, in the thread that it runs in."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker
        #: A soft shutdown waits no longer; set in a signal handler.
        self.is_in_haste = False

    def run(self, warm: bool) -> None:
        """Stop all parts of the worker; returns when they have stopped."""
        worker = self.worker
        stopping.begin()
        hurry = getattr(worker.pool, "hurry", None)
        if hurry is not None:
            hurry()
        worker.impatience.watch()
        with default_socket_timeout(SHUTDOWN_SOCKET_TIMEOUT):
            self._stop_taking()
            if warm:
                self._finish_running()
                warm = state.should_terminate is None  # else a signal came meanwhile that asks for a cold one
                worker._note_exitcode(state.should_terminate)
            if not warm:
                worker.wait_for_soft_shutdown()
                if worker.consumer is not None:
                    worker.consumer.give_up_requests()
            self._close_books()
            self._lose_patience()
            worker.impatience.rest()  # the consumer's step wakes it
            worker.blueprint.stop(worker, terminate=not warm)
            worker.blueprint.join()

    def _stop_taking(self) -> None:
        """Take no more messages.  The connection stays, for acknowledgements and heartbeats."""
        task_consumer = getattr(self.worker.consumer, "task_consumer", None)
        if task_consumer is None:
            return
        try:
            task_consumer.cancel()
        except Exception as exc:  # the connection may be what we stop for
            logger.debug("Canceling the task consumer failed: %r", exc)

    def _finish_running(self) -> None:
        """Wait for what runs, with the hub turning, so that it ends as it would at any other time."""
        pool = self.worker.pool
        if not self.worker.hub or pool is None or not hasattr(pool, "in_flight"):
            return  # the pool's own `stop` waits
        self._drop_waiting()
        pool.close()
        self._turn_until(lambda: not pool.in_flight or state.should_terminate is not None)

    def wait_softly(self) -> None:
        """Give what runs the time that the settings grant it; what has not begun goes back at once."""
        worker, conf = self.worker, self.worker.app.conf
        seconds = conf.worker_soft_shutdown_timeout
        if not seconds or not (
            len(state.requests) > len(state.scheduled_requests) or conf.worker_enable_soft_shutdown_on_idle
        ):
            return
        logger.warning("Initiating Soft Shutdown, terminating in %s seconds", seconds)
        waits_when_idle = conf.worker_enable_soft_shutdown_on_idle
        knows_what_runs = bool(worker.hub) and hasattr(worker.pool, "in_flight")

        def is_over() -> bool:
            # A task may have begun a moment ago, and only its pool knows.
            running = worker.pool.in_flight if knows_what_runs else state.active_requests
            return self.is_in_haste or not (waits_when_idle or running)

        if worker.hub:
            if knows_what_runs:
                self._drop_waiting()
                worker.pool.close()
            self._turn_until(is_over, seconds)
        else:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and not is_over():
                worker.impatience.progress()
                time.sleep(0.1)

    def _drop_waiting(self) -> None:
        drop = getattr(self.worker.consumer, "_drop_waiting", None)
        if drop is not None:
            drop()

    def _close_books(self) -> None:
        """Have stored what this process still has to store, so that what waits for that can be acknowledged."""
        consumer = self.worker.consumer
        books = getattr(consumer, "bookkeeper", None)
        if books is None:
            return
        books.close()
        deadline = time.monotonic() + BOOKS_SECONDS
        if self.worker.hub:
            self._turn_until(lambda: not books.is_awaited, BOOKS_SECONDS)
        while books.is_awaited and time.monotonic() < deadline:
            time.sleep(0.01)
            consumer.perform_pending_operations()

    def _lose_patience(self) -> None:
        """Have the broker no longer hold up what is left to do."""
        consumer = self.worker.consumer
        eventer = getattr(consumer, "event_dispatcher", None)
        for connection in (getattr(consumer, "connection", None), getattr(eventer, "connection", None)):
            bound_open_broker_sockets(connection, SHUTDOWN_SOCKET_TIMEOUT)
            for channel in getattr(getattr(connection, "_transport", None), "channels", None) or ():
                if hasattr(channel, "patience"):  # one of our transports
                    channel.socket_timeout = SHUTDOWN_SOCKET_TIMEOUT

    def _turn_until(self, done: Callable[[], bool], seconds: float | None = None) -> None:
        """Turn the hub until ``done`` or ``seconds`` have passed, with or without a connection."""
        worker = self.worker
        deadline = None if seconds is None else time.monotonic() + seconds

        def is_over() -> bool:
            worker.impatience.progress()
            return done()

        while not done() and (deadline is None or time.monotonic() < deadline):
            step = 1.0 if deadline is None else max(0.0, min(1.0, deadline - time.monotonic()))
            try:
                loops.turn(worker.hub, step, until=is_over)
            except Exception as exc:
                # Nothing can be acknowledged any more, but what runs may still end.
                logger.warning("Connection to broker lost while stopping: %s", exc)
                worker.hub.reset()
                worker.hub.on_tick.clear()
                worker.pool.register_with_event_loop(worker.hub)
