"""Hands jobs to child processes, hears what became of them, and keeps the children alive.

A job goes to an idle child.  A busy child is given more only while no child is idle and what it has is short; what
waits behind a job that turns out long is taken back for the next idle child.  When a child dies, its page and the
rest of its socket tell which of its jobs had ended, which had begun, and which go to another child.
"""

from __future__ import annotations

import math
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any

from billiard.exceptions import Terminated, WorkerLostError

from celery.concurrency.base import raised, tell
from celery.concurrency.processes.calls import Call
from celery.concurrency.processes.child import Child, settle
from celery.concurrency.processes.frames import (
    ANSWER,
    CALL,
    DONE_THROUGH,
    JOB,
    LONGEST_BODY,
    RETIRING,
    SKIPPED,
    UP,
)
from celery.concurrency.processes.inside import ChildSetup
from celery.concurrency.processes.limits import Limits
from celery.concurrency.processes.pace import SHORT_SECONDS, new_pace
from celery.concurrency.processes.page import DONE, RUNNING, SOFT_RAISED, STARTED_AT, STOPPING
from celery.concurrency.processes.roster import Roster, logger
from celery.utils.failpoints import failpoint, is_active

if TYPE_CHECKING:
    from celery.abc import Job

__all__ = ("Supervisor",)

#: A child is given no more than this many seconds of work, and this many jobs, at a time.
MOST_SECONDS_AHEAD = 0.002
MOST_JOBS_AHEAD = 32

#: How often pages are read while something of interest may have happened without a message.
LOOK_SECONDS = 0.005

#: A job that has run for this long is not short, whatever its name did before.
LONG_SECONDS = 2 * SHORT_SECONDS

#: Whether a test of the tests has switched this protection off.
_FORGETS_UNSTARTED = is_active("unprotect.redispatch")
_LETS_WAIT = is_active("unprotect.fair")


class Supervisor(Roster):
    """Runs jobs in ``limit`` child processes; further options are those of `Roster`."""

    def __init__(
        self,
        limit: int,
        setup: ChildSetup,
        *,
        hard_limit: float | None = None,
        soft_limit: float | None = None,
        gives_ahead: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(limit, setup, **options)
        self.gives_ahead = gives_ahead
        self.backlog: deque[Job] = deque()
        self.pace = new_pace()
        self.limits = Limits(self, hard_limit, soft_limit)
        self._is_looking = False

    # -- what the pool asks for

    def submit(self, job: Job) -> None:
        """Run ``job`` when there is room; never blocks."""
        if self.is_closing:
            tell(job.on_dropped)
        elif self._idle and not self.backlog:
            child = self._take_idle()
            self._give(child, job)
            self._push(child)
        else:
            self.backlog.append(job)

    def withdraw(self, job: Job) -> bool:
        """Forget ``job`` if it has not begun; return whether that was so."""
        try:
            self.backlog.remove(job)
            return True
        except ValueError:
            pass
        child = self.child_with(job)
        if child is None or (child.flights[0][1] is job and child.page.counters[RUNNING] >= child.flights[0][0]):
            return False
        taken = self._take_back([child])
        has_found = job in taken
        self.backlog.extendleft(other for other in reversed(taken) if other is not job)
        self.dispatch()
        return has_found

    @property
    def in_flight(self) -> int:
        return sum(len(child.flights) for child in self.children.values())

    def child_with(self, job: Job) -> Child | None:
        """Return the child that was given ``job``."""
        for child in self.children.values():
            if any(flight[1] is job for flight in child.flights):
                return child
        return None

    def hurry(self) -> None:
        """Let the children know that all this comes to an end."""
        for child in self.children.values():
            child.page.counters[STOPPING] = 1

    def close(self) -> None:
        """Take no more, and drop what has not begun."""
        self.is_closing = True
        self.drop_waiting()

    def drop_waiting(self) -> None:
        """Drop every job that has not begun."""
        taken = self._take_back(list(self.children.values()))
        dropped = [*taken, *self.backlog]
        self.backlog.clear()
        for job in dropped:
            tell(job.on_dropped)

    def stop(self) -> None:
        """Wait for the jobs that run, then for the processes to end."""
        self.close()
        while self.in_flight:
            self.turn(1.0)
        for child in list(self.children.values()):
            self.dismiss(child)
        while self.children:
            self.turn(1.0)
        self._end()

    def terminate(self, signum: int) -> None:
        """Kill the processes; jobs that ran are lost by ``signum``."""
        self.close()
        for child in self.children.values():
            running = child.page.counters[RUNNING]
            child.terminated = running, signum
            child.is_leaving = True
            child.kill()
        while self.children:
            self.turn(1.0)
        self._end()

    def _end(self) -> None:
        self.agenda.clear()
        if self.hub is not None:
            self.hub.on_tick.discard(self.on_tick)

    def grow(self, n: int) -> None:
        """Have ``n`` more children."""
        self.limit += n
        self.fill()

    def shrink(self, n: int) -> None:
        """Have ``n`` children fewer: idle ones first, and busy ones after what they run."""
        if n >= self.limit:
            raise ValueError(f"Cannot take {n} of {self.limit} processes away: a pool needs one")
        self.limit -= n
        staying = [child for child in self.children.values() if not child.is_leaving]
        staying.sort(key=lambda child: (child.is_up, len(child.flights)))
        self._dismiss_all(staying[: max(len(staying) - self.limit, 0)])

    def restart(self) -> None:
        """Replace all children; each ends after what it runs."""
        self._dismiss_all([child for child in self.children.values() if not child.is_leaving])
        self.fill()

    def _dismiss_all(self, children: list[Child]) -> None:
        self.backlog.extendleft(reversed(self._take_back(children)))
        for child in children:
            self.dismiss(child)
        self.dispatch()

    # -- giving

    def on_tick(self) -> None:
        if self.backlog:
            self.dispatch()

    def dispatch(self) -> None:
        """Give out what waits, in order, as far as there is room."""
        backlog = self.backlog
        given: list[Child] = []
        while backlog and self._idle:
            child = self._take_idle()
            self._give(child, backlog.popleft())
            given.append(child)
        if backlog and self.gives_ahead:
            given.extend(self._give_ahead())
        for child in given:
            self._push(child)

    def _give_ahead(self) -> list[Child]:
        """Give short jobs to children that are down to a short one.

        Not sooner: a child that gets several at once answers for them at once, and stores their results in one go.
        """
        backlog, pace = self.backlog, self.pace
        roomy = [child for child in self.children.values() if self._has_room(child)]
        share = -(-len(backlog) // len(roomy)) if roomy else 0
        for child in roomy:
            for _ in range(min(share, MOST_JOBS_AHEAD - len(child.flights))):
                if not backlog:
                    break
                seconds = pace[backlog[0].name]
                if seconds >= SHORT_SECONDS or child.load + seconds > MOST_SECONDS_AHEAD or self._is_last(child):
                    break
                self._give(child, backlog.popleft())
        return roomy

    def _has_room(self, child: Child) -> bool:
        return (
            child.load < MOST_SECONDS_AHEAD
            and child.is_up
            and not child.is_leaving
            and child.unsent is None
            and len(child.flights) == 1
        )

    def _is_last(self, child: Child) -> bool:
        """Return true if a child has all the jobs that it may run before it is replaced."""
        most = self.setup.max_tasks
        return bool(most) and child.succeeded + len(child.flights) >= most  # type: ignore[operator]

    def _take_idle(self) -> Child:
        child = self._idle.pop()
        child.is_idle = False
        return child

    def _give(self, child: Child, job: Job) -> None:
        """Queue ``job`` for ``child``; the caller pushes."""
        try:
            frame = job.frame()
            if frame is None:  # revoked while it waited, or not ours any more: it has been dealt with
                return
            if len(frame) > LONGEST_BODY:
                raise ValueError(f"{job.name}[{job.id}] takes {len(frame)} bytes, more than a frame holds")
        except Exception as error:
            logger.error("%s[%s] cannot be sent to a child process: %r", job.name, job.id, error, exc_info=True)
            tell(job.on_lost, error)
            return
        number = child.put(CALL if type(job) is Call else JOB, frame, job, self.pace[job.name])
        self.limits.note(child, number, job)
        if not self._is_looking:
            self.look_soon()

    def _push(self, child: Child) -> None:
        failpoint("pool.before_dispatch")
        if not child.flights and not child.waiting:
            self._rest(child)  # what it was to get had been revoked
            return
        is_sent = child.push()
        failpoint("pool.after_dispatch")
        if not is_sent and child.unsent_fd < 0:
            child.open_unsent_fd()
            if self.hub is not None:
                self.hub.add_writer(child.unsent_fd, self.on_writable, child)

    def on_writable(self, child: Child) -> None:
        if child.push():
            self._unwatch(child.unsent_fd)
            child.close_unsent_fd()
            self.dispatch()

    def _rest(self, child: Child) -> None:
        """Put a child without work among the idle, or see it off."""
        if child.flights or child.is_idle or not child.is_up:
            return
        if child.is_leaving:
            self._expect_exit(child)
        elif not self.is_closing:
            child.is_idle = True
            self._idle.append(child)

    def _take_back(self, children: list[Child]) -> list[Job]:
        """Return the jobs of ``children`` that have not begun; they are theirs no more."""
        children = [child for child in children if child.flights]
        for child in children:
            child.withdraw()
        if not children:
            return []
        settle()
        taken: list[Job] = []
        for child in children:
            taken += child.take_back()
            self._rest(child)
        return taken

    # -- hearing

    def on_readable(self, child: Child) -> None:
        frames = child.receive()
        if frames is None:
            self._on_end_of_stream(child)
            return
        self._hear(child, frames)
        self._rest(child)
        if self.backlog:
            self.dispatch()

    def _hear(self, child: Child, frames: list[tuple[int, int, bytes]]) -> None:
        for kind, number, body in frames:
            if kind == DONE_THROUGH:
                times = memoryview(body).cast("d")
                self._end_plainly(child, number, times, number - len(times) + 2)
            elif kind == ANSWER:
                began, ended = memoryview(body)[:16].cast("d")
                self._end_with_answer(child, number, bytes(body[16:]), began, ended)
            elif kind == SKIPPED:
                self._on_skipped(child, number)
            elif kind == RETIRING:
                self._on_retiring(child)
            elif kind == UP:
                self._on_up(child)

    def _end_plainly(self, child: Child, through: int, times: Any = None, first: int = 0) -> None:
        """End the jobs up to ``through`` as plain successes; ``times[0]`` is when ``first`` began."""
        flights, pace = child.flights, self.pace
        while flights and flights[0][0] <= through:
            number, job = child.pop()
            began = None
            if times is not None and number >= first:
                began = times[number - first]
                pace.note(job.name, times[number - first + 1] - began)
            child.succeeded += 1
            try:
                if number > child.reported:
                    child.reported = number
                    job.on_started(child.pid, monotonic() if began is None else began)
                if number == child.soft_number:
                    self._tell_soft_limit(child, number, job)
                job.on_finished(b"")
            except Exception:
                logger.error("Pool callback of %s[%s] failed", job.name, job.id, exc_info=True)

    def _end_with_answer(self, child: Child, number: int, answer: bytes, began: float, ended: float) -> None:
        flights = child.flights
        if not flights or flights[0][0] > number:
            return
        if flights[0][0] < number:
            self._end_plainly(child, number - 1)
        number, job = child.pop()
        child.succeeded += 1
        self.pace.note(job.name, ended - began)
        try:
            if number > child.reported:
                child.reported = number
                job.on_started(child.pid, began)
            if number == child.soft_number:
                self._tell_soft_limit(child, number, job)
            job.on_finished(answer)
        except Exception:
            logger.error("Pool callback of %s[%s] failed", job.name, job.id, exc_info=True)

    def _tell_soft_limit(self, child: Child, number: int, job: Job) -> None:
        """Tell ``job`` if the soft limit was raised in it."""
        child.soft_number = 0
        if child.page.counters[SOFT_RAISED] == number:
            tell(job.on_soft_limit, self.limits.of(job)[1])

    def _on_skipped(self, child: Child, number: int) -> None:
        job = child.remove(number)
        if job is None:
            return
        if self.is_closing:
            tell(job.on_dropped)
        else:
            self.backlog.appendleft(job)

    def _on_up(self, child: Child) -> None:
        child.is_up = True
        self._was_ever_up = True

    def _on_retiring(self, child: Child) -> None:
        """It has run its last job: what it has beyond that goes to others, and another takes its place."""
        child.is_leaving = True
        self._requeue(child)
        if not self.is_closing:
            self.fill()

    def _requeue(self, child: Child) -> None:
        """Give all that ``child`` still has to others, in its order."""
        jobs = []
        while child.flights:
            jobs.append(child.pop()[1])
        if self.is_closing:
            for job in jobs:
                tell(job.on_dropped)
        elif not _FORGETS_UNSTARTED:
            self.backlog.extendleft(reversed(jobs))

    def on_drain(self, child: Child) -> None:
        """Hear all that is in the socket."""
        while not child.has_ended:
            frames = child.receive()
            if frames is None:
                self._on_end_of_stream(child)
            elif frames or child.stream.is_inside_frame:
                self._hear(child, frames)
            else:
                break

    def on_death(self, child: Child, status: str) -> None:
        counters = child.page.counters
        self._end_plainly(child, counters[DONE])
        running, began = counters[RUNNING], child.page.times[STARTED_AT]
        if child.flights and child.flights[0][0] <= running:
            number, job = child.pop()
            if number > child.reported:
                child.reported = number
                tell(job.on_started, child.pid, began)
            if number == child.soft_number:
                self._tell_soft_limit(child, number, job)
            if child.killed is not None and child.killed[0] == number:
                tell(job.on_hard_limit, child.killed[1])
            elif child.terminated is not None and child.terminated[0] == number:
                tell(job.on_lost, raised(Terminated(child.terminated[1])))
            else:
                tell(job.on_lost, raised(WorkerLostError(f"Worker exited prematurely: {status} Job: {number}.")))
        self._requeue(child)

    # -- looking at pages

    def look_soon(self) -> None:
        """Look at the pages in a few milliseconds."""
        if not self._is_looking:
            self._is_looking = True
            self.agenda.after(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Learn from the pages what no message has told yet."""
        self._is_looking = False
        looks_again = False
        for child in list(self.children.values()):
            if child.flights:
                self._look_at(child)
                looks_again |= self._is_interesting(child)
        if self._idle and not self.backlog:
            self._relieve()
        if self.backlog:
            self.dispatch()
        if looks_again:
            self.look_soon()

    def look(self) -> None:
        """Look at the pages now, because somebody asks."""
        for child in list(self.children.values()):
            if child.flights:
                self._look_at(child)

    def _is_interesting(self, child: Child) -> bool:
        """Return true if its page may tell something new soon: a start, a soft limit, a job that is not short."""
        flights = child.flights
        return bool(flights) and (flights[-1][0] > child.reported or child.soft_number > 0 or child.load < math.inf)

    def _look_at(self, child: Child) -> None:
        counters = child.page.counters
        done = counters[DONE]
        if done >= child.flights[0][0]:
            self.on_drain(child)  # an answer is in the socket before DONE is set
            self._end_plainly(child, done)
            self._rest(child)
            if not child.flights:
                return
        number, job, _ = child.flights[0]
        running, began = counters[RUNNING], child.page.times[STARTED_AT]
        if running == number > child.reported and counters[RUNNING] == running:
            child.reported = number
            tell(job.on_started, child.pid, began)
        if running == number and monotonic() - began > LONG_SECONDS:
            child.load = math.inf
        if number == child.soft_number and counters[SOFT_RAISED] == number:
            self._tell_soft_limit(child, number, job)

    def spread(self, child: Child) -> None:
        """Take away what ``child`` has not begun, and give it to others."""
        child.load = math.inf
        self.backlog.extendleft(reversed(self._take_back([child])))
        self.dispatch()

    def _relieve(self) -> None:
        """Take back what waits behind long jobs, for the idle children."""
        crowded = [c for c in self.children.values() if c.load == math.inf and len(c.flights) > 1 and not _LETS_WAIT]
        self.backlog.extend(self._take_back(crowded))
