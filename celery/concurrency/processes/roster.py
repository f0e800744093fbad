"""Keeps as many child processes alive as there should be, and listens to them, on kombu's hub or without one."""

from __future__ import annotations

import select
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import Any

from billiard import get_context
from billiard.common import human_status
from kombu.asynchronous import get_event_loop, set_event_loop

from celery.concurrency.agenda import Agenda
from celery.concurrency.processes.child import Child, start_child
from celery.concurrency.processes.inside import ChildSetup
from celery.concurrency.processes.page import OWING
from celery.utils.log import get_logger

__all__ = ("Roster", "logger")

logger = get_logger("celery.concurrency.prefork")

#: How long a child may take to end once it has nothing to do, before it is killed.
EXIT_SECONDS = 5.0

#: Without pidfd, a dead child is noticed by its socket, or after this time.
PATROL_SECONDS = 0.5

#: After failed starts: the first pause, doubled each time up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0


class Roster:
    """``limit`` child processes.  What they do is the subclass's: it fills in the methods called ``on_``."""

    def __init__(
        self,
        limit: int,
        setup: ChildSetup,
        *,
        start_method: str = "fork",
        alive_timeout: float = 4.0,
        before_start: Callable[[Any], Any] | None = None,
    ) -> None:
        self.limit = limit
        self.setup = setup
        self.alive_timeout = alive_timeout
        self.before_start = before_start
        self.children: dict[int, Child] = {}
        self.agenda = Agenda()
        self.hub: Any = None
        self.is_closing = False
        #: Those that are ready and have nothing to do; the last one was busy most recently.
        self._idle: list[Child] = []
        self._context = get_context(start_method)
        self._name_format = f"{start_method.capitalize()}PoolWorker-%d"
        self._names = count(1)
        self._failed_starts = 0
        self._was_ever_up = False
        self._pauses = False
        self._is_patrolling = False

    def on_readable(self, child: Child) -> None:
        """Its socket has something."""

    def on_writable(self, child: Child) -> None:
        """Its socket has room again."""

    def on_drain(self, child: Child) -> None:
        """It is dead: hear the last that its socket has."""

    def on_death(self, child: Child, status: str) -> None:
        """It is dead, and heard to the end: settle its account."""

    def on_tick(self) -> None:
        """The loop is about to wait."""

    # -- being born

    def start(self) -> None:
        self.fill()

    def fill(self) -> None:
        """Start children until there are as many as there should be."""
        if self.is_closing or self._pauses:
            return
        staying = sum(not child.is_leaving for child in self.children.values())
        for _ in range(self.limit - staying):
            self._start_one()

    def _start_one(self) -> None:
        if self.before_start is not None:
            self.before_start(self)
        try:
            name = self._name_format % next(self._names)
            child = start_child(self._context, name, self.setup, self._let_go, self._free_index())
        except OSError as error:  # no memory, no process, no descriptor left
            logger.error("Cannot start a child process: %s", error)
            self._pause()
            return
        self.children[child.pid] = child
        if child.pidfd < 0 and not self._is_patrolling:
            self._patrol()
        if self.hub is not None:
            self._watch(child)
        patience = self.alive_timeout * 2 ** min(self._failed_starts, 6)
        self.agenda.after(patience, lambda: self._check_up(child))

    def _free_index(self) -> int:
        """Return the lowest number that none of the children has who stay; log files are named after it."""
        taken = {child.index for child in self.children.values() if not child.is_leaving}
        return next(index for index in count() if index not in taken)

    def _let_go(self) -> None:
        """In a new child: close what is the parent's."""
        for sibling in self.children.values():
            sibling.let_go()
        set_event_loop(self.hub or get_event_loop())  # the child's `leave_event_loop` sees to it

    def _check_up(self, child: Child) -> None:
        if not child.is_up and child.pid in self.children:
            logger.error("Timed out waiting for UP message from %r", child.process)
            child.kill()

    def has_started(self) -> bool:
        """Wait a moment for the first children; return false if all of them died at once."""
        deadline = monotonic() + self.alive_timeout
        while not self._was_ever_up and self._failed_starts < self.limit and monotonic() < deadline:
            self.turn(deadline - monotonic())
        return self._was_ever_up or self._failed_starts < self.limit

    # -- listening

    def turn(self, seconds: float) -> None:
        """Do what is to do within ``seconds``, without a hub; returns after the first batch of events."""
        left = self.agenda.seconds_left()
        poller = select.poll()
        handlers: dict[int, tuple[Callable[[Child], None], Child]] = {}
        for child in self.children.values():
            if not child.has_ended:
                handlers[child.channel.fileno()] = self.on_readable, child
                poller.register(child.channel, select.POLLIN)
            if child.pidfd >= 0:
                handlers[child.pidfd] = self._on_exit, child
                poller.register(child.pidfd, select.POLLIN)
            if child.unsent is not None:
                handlers[child.unsent_fd] = self.on_writable, child
                poller.register(child.unsent_fd, select.POLLOUT)
        self.on_tick()
        for fd, _ in poller.poll(max(0, 1000 * (seconds if left is None else min(seconds, left)))):
            handler, child = handlers[fd]
            if self.children.get(child.pid) is child:
                handler(child)
        self.agenda.run_due()

    def use(self, hub: Any) -> None:
        """Work on kombu's ``hub`` from now on; also after it was reset."""
        self.hub = hub
        self.agenda.use(hub)
        hub.on_tick.add(self.on_tick)
        for child in self.children.values():
            self._watch(child)

    def _watch(self, child: Child) -> None:
        hub = self.hub
        if not child.has_ended:
            hub.add_reader(child.channel.fileno(), self.on_readable, child)
        if child.pidfd >= 0:
            hub.add_reader(child.pidfd, self._on_exit, child)
        if child.unsent is not None:
            hub.add_writer(child.unsent_fd, self.on_writable, child)

    def _unwatch(self, *fds: int) -> None:
        if self.hub is not None:
            for fd in fds:
                if fd >= 0:
                    self.hub.remove(fd)

    # -- leaving and dying

    def dismiss(self, child: Child) -> None:
        """Let ``child`` end after what it runs."""
        self._wake(child)
        child.dismiss()
        if not child.flights:
            self._expect_exit(child)

    def _wake(self, child: Child) -> None:
        """Count ``child`` among the idle no more."""
        if child.is_idle:
            child.is_idle = False
            self._idle.remove(child)

    def _expect_exit(self, child: Child) -> None:
        self.agenda.after(EXIT_SECONDS, lambda: self._end_overdue(child))

    def _end_overdue(self, child: Child) -> None:
        if child.pid not in self.children:
            return
        if child.page.counters[OWING] and not self.is_closing:
            self._expect_exit(child)
        else:
            child.kill()

    def _on_end_of_stream(self, child: Child) -> None:
        """It closed its end: it is dead, about to end, or has lost its descriptors."""
        child.has_ended = True
        self._unwatch(child.channel.fileno())
        self._wake(child)
        if child.pidfd < 0:
            self.agenda.after(0.01, self._reap)
        self._expect_exit(child)

    def _patrol(self) -> None:
        """Without pidfd: see from time to time whether a child has died."""
        self._reap()
        self._is_patrolling = any(child.pidfd < 0 for child in self.children.values())
        if self._is_patrolling:
            self.agenda.after(PATROL_SECONDS, self._patrol)

    def _reap(self) -> None:
        for child in list(self.children.values()):
            if child.process.exitcode is not None:
                self._on_exit(child)

    def _on_exit(self, child: Child) -> None:
        """Settle the account of a dead child, and replace it."""
        exitcode = child.process.exitcode
        if exitcode is None and child.is_alive():  # the event was for an older descriptor of that number
            return
        self._unwatch(child.pidfd)
        self.on_drain(child)
        if not child.has_ended:  # its own children hold the other end
            self._unwatch(child.channel.fileno())
        self._unwatch(child.unsent_fd)
        self._wake(child)
        del self.children[child.pid]
        status = human_status(exitcode) if exitcode is not None else "unknown status"
        if exitcode != 0 and not child.is_leaving:
            logger.error("Process %r pid:%r exited with %r", child.name, child.pid, status)
        try:
            self.on_death(child, status)
        finally:
            child.close()
        if not self.is_closing:
            self._replace(child)
            self.on_tick()

    def _replace(self, child: Child) -> None:
        """Start a successor; not at once if this one died early without having done anything."""
        has_failed = not child.is_up or (not child.reported and monotonic() - child.started_at < 1)
        if has_failed and not child.is_leaving:
            self._pause()
            return
        if not has_failed:
            self._failed_starts = 0
        self.fill()

    def _pause(self) -> None:
        self._failed_starts += 1
        if not self._pauses:
            self._pauses = True
            pause = min(FIRST_PAUSE * 2 ** (self._failed_starts - 1), LONGEST_PAUSE)
            self.agenda.after(pause, self._end_pause)

    def _end_pause(self) -> None:
        self._pauses = False
        self.fill()
