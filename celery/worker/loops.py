"""Wait for the broker and do what comes in: on kombu's hub, or blocking where there is none.

Every pool runs on the hub.  A transport with a file descriptor wakes it; one without (SQL, files, memory) is looked
at from a timer of the same hub, soon again while messages come and ever less often while none do.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kombu.asynchronous import set_event_loop

from celery import bootsteps
from celery.exceptions import WorkerLostError
from celery.utils.log import get_logger
from celery.worker import state

__all__ = ("asynloop", "set_event_loop", "synloop", "turn")

logger = get_logger(__name__)

#: Seconds between two looks at a transport that cannot be polled.
SHORTEST_LOOK, LONGEST_LOOK = 0.01, 0.25
#: A broker that is slow to look at is looked at less often, at most once a second, to stay under half a percent.
SHARE_OF_TIME, SLOWEST_LOOK = 0.004, 1.0

#: Seconds for which the hub waits at least once it is to turn no more.
SHORTEST_POLL = 0.001

#: Messages taken in one look, so that the rest of the loop has its turn.
MESSAGES_PER_LOOK = 100

#: What `drain_events` raises when nothing is there.
NOTHING_THERE = (socket.timeout, BlockingIOError)


def asynloop(
    obj: Any,
    connection: Any,
    consumer: Any,
    blueprint: Any,
    hub: Any,
    qos: Any,
    heartbeat: float | None,
    clock: Any,
    hbrate: float = 2.0,
) -> None:
    """Run the consumer ``obj`` on ``hub`` until the blueprint stops, the connection is lost or a signal says so."""
    consumer.on_message = obj.create_task_handler()
    obj.controller.register_with_event_loop(hub)
    obj.register_with_event_loop(hub)
    consumer.consume()
    obj.on_ready()
    _check_pool(obj)
    watchers = [*_heartbeats(connection, heartbeat, hbrate, hub.timer), *_first_looks(connection, hub)]
    hub.propagate_errors = (*connection.connection_errors, *connection.channel_errors)
    loop = hub.create_loop()
    try:
        with wake_on_signal(hub):
            while blueprint.state == bootsteps.RUN and obj.connection:
                state.maybe_shutdown()
                if qos.prev != qos.value:
                    qos.update()
                try:
                    next(loop)
                except StopIteration:  # the poller was closed under the loop
                    loop = hub.create_loop()
    finally:
        for watcher in watchers:
            watcher.cancel()


def synloop(
    obj: Any,
    connection: Any,
    consumer: Any,
    blueprint: Any,
    hub: Any,
    qos: Any,
    heartbeat: float | None,
    clock: Any,
    hbrate: float = 2.0,
    **kwargs: Any,
) -> None:
    """Run the consumer ``obj`` by blocking on its connection; other threads call back through ``obj.call_soon``."""
    consumer.on_message = obj.create_task_handler()
    consumer.consume()
    obj.on_ready()
    _check_pool(obj)
    watchers = list(_heartbeats(connection, heartbeat, hbrate, obj.timer))
    try:
        while blueprint.state == bootsteps.RUN and obj.connection:
            state.maybe_shutdown()
            obj.perform_pending_operations()
            if qos.prev != qos.value:
                qos.update()
            try:
                connection.drain_events(timeout=_patience(obj))
            except TimeoutError:
                pass
            except OSError as exc:
                if blueprint.state == bootsteps.RUN and exc.errno != errno.EINTR:
                    raise
    finally:
        for watcher in watchers:
            watcher.cancel()


def _patience(obj: Any) -> float:
    """Return how long to block: shortly while other threads may have work for this one."""
    return 0.1 if state.requests else 1.0


def _check_pool(obj: Any) -> None:
    if not obj.restart_count and not obj.pool.did_start_ok():
        raise WorkerLostError("Could not start worker processes")


def _heartbeats(connection: Any, heartbeat: float | None, rate: float, timer: Any) -> Iterator[Any]:
    """Start to send AMQP heartbeats and to miss those of the broker."""
    if heartbeat and connection.supports_heartbeats:
        yield timer.call_repeatedly(heartbeat / rate, connection.heartbeat_check, (rate,))


def _first_looks(connection: Any, hub: Any) -> Iterator[Any]:
    """See to it that messages are taken: those already read from the socket, and those of unpolled transports."""
    if connection.transport.implements.asynchronous:
        # A message that came together with the last answer is in our buffer: no poll would tell.
        hub.call_soon(_look, connection)
    else:
        drain = Drain(connection, hub)
        drain.schedule()
        yield drain


def _look(connection: Any) -> bool:
    """Take what is there without waiting; return whether there was anything."""
    try:
        connection.drain_events(timeout=0)
    except NOTHING_THERE:
        return False
    except OSError as exc:
        if exc.errno not in (errno.EAGAIN, errno.EINTR):
            raise
        return False
    return True


class Drain:
    """Takes messages from a transport that cannot be polled."""

    def __init__(self, connection: Any, hub: Any) -> None:
        self.connection = connection
        self.hub = hub
        self.delay = SHORTEST_LOOK
        self._timer: Any = None
        self._cancelled = False

    def schedule(self) -> None:
        self._timer = self.hub.call_later(self.delay, self)

    def __call__(self) -> None:
        if self._cancelled:
            return
        taken, began = 0, time.monotonic()
        while taken < MESSAGES_PER_LOOK and _look(self.connection):
            taken += 1
        if taken:
            self.delay = SHORTEST_LOOK
        else:
            slow = min((time.monotonic() - began) / SHARE_OF_TIME, SLOWEST_LOOK)
            self.delay = min(self.delay * 2, max(LONGEST_LOOK, slow))
        self.schedule()

    def cancel(self) -> None:
        self._cancelled = True
        if self._timer is not None:
            self._timer.cancel()


@contextmanager
def can_be_woken(hub: Any) -> Iterator[None]:
    """Let other threads end the hub's present wait; see `wake`."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)

    def drain() -> None:
        try:
            reader.recv(512)
        except BlockingIOError:
            pass

    hub.add_reader(reader, drain)
    before, hub.waker = getattr(hub, "waker", None), writer
    try:
        yield
    finally:
        hub.waker = before
        hub.remove(reader)
        reader.close()
        writer.close()


def wake(hub: Any) -> None:
    """End the hub's present wait, from any thread, so that what was given to ``call_soon`` is done at once."""
    waker = getattr(hub, "waker", None)
    if waker is not None:
        with suppress(OSError):  # it is full, so the hub will wake; or its loop has just ended
            waker.send(b"\0")


@contextmanager
def wake_on_signal(hub: Any) -> Iterator[None]:
    """Let other threads end the hub's present wait, and signals: the flag that a handler sets is seen at once."""
    with can_be_woken(hub):
        previous = None
        if threading.current_thread() is threading.main_thread():
            with suppress(ValueError):  # not the main interpreter
                previous = signal.set_wakeup_fd(hub.waker.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            if previous is not None:
                signal.set_wakeup_fd(previous)


def turn(hub: Any, seconds: float, until: Callable[[], bool] | None = None) -> None:
    """Let ``hub`` work for at most ``seconds``, or until ``until`` says so."""
    finished: list[bool] = []
    deadline: Any = None

    def finish() -> None:
        # The poll that follows is as long as the next timer is away, up to ten seconds.  On a busy machine that timer
        # may be due, and gone, before the poll: so there is always another.
        nonlocal deadline
        finished.append(True)
        deadline = hub.timer.call_after(SHORTEST_POLL, finish)

    deadline = hub.timer.call_after(seconds, finish)
    loop = hub.create_loop()
    try:
        with can_be_woken(hub):
            while not finished and not (until is not None and until()):
                try:
                    next(loop)
                except StopIteration:
                    loop = hub.create_loop()
    finally:
        deadline.cancel()


def _forget_wakeup_fd() -> None:
    if threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)


# A child inherits the descriptor of `wake_on_signal`; its own signals must not wake its parent.
os.register_at_fork(after_in_child=_forget_wakeup_fd)
