"""The parent's view of one child process: its socket, its page, and what it was given."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery.concurrency.processes import inside
from celery.concurrency.processes.frames import HEADER, LARGE, FrameStream
from celery.concurrency.processes.page import CLAIMED, WITHDRAWN, ProgressPage

if TYPE_CHECKING:
    from celery.abc import Job

__all__ = ("Child", "settle", "start_child")

READ_SIZE = 1 << 16

#: How long a store to shared memory may take until the other side sees it, with a hundredfold margin.
SETTLE_SECONDS = 50e-6


def settle() -> None:
    """Wait until what was stored before is seen by the children, and what they stored before that by us."""
    time.sleep(SETTLE_SECONDS)


class Child:
    """One child process.

    ``flights`` holds ``(number, job, cost)`` of each frame that it was given and has not answered, oldest first;
    ``cost`` is the seconds that the job is expected to take.
    """

    __slots__ = (
        "channel",
        "flights",
        "has_ended",
        "has_large",
        "index",
        "is_idle",
        "is_leaving",
        "is_up",
        "killed",
        "limits",
        "load",
        "name",
        "page",
        "pid",
        "pidfd",
        "process",
        "reported",
        "sent",
        "soft_number",
        "started_at",
        "stream",
        "succeeded",
        "terminated",
        "unsent",
        "unsent_fd",
        "waiting",
    )

    def __init__(self, process: Any, channel: socket.socket, page: ProgressPage, index: int = 0) -> None:
        self.process = process
        self.index = index
        self.name: str = process.name
        self.pid: int = process.pid
        self.channel = channel
        self.page = page
        self.pidfd = open_pidfd(self.pid)
        self.stream = FrameStream()
        self.started_at = time.monotonic()
        self.flights: deque[tuple[int, Job, float]] = deque()
        self.load = 0.0  #: seconds of work that it has before it
        self.sent = 0  #: the number of the last frame
        self.succeeded = 0  #: how many jobs it answered
        self.reported = 0  #: up to this number, `on_started` was called
        self.limits: dict[int, tuple[float | None, float | None]] = {}  #: hard and soft, by number
        self.soft_number = 0  #: which number got the soft limit's signal, until the job was told
        self.killed: tuple[int, float] | None = None  #: number and hard limit
        self.terminated: tuple[int, int] | None = None  #: number and signal
        self.waiting: list[bytes] = []  #: frames for the next `push`
        self.has_large = False  #: whether a large one is among them
        self.unsent: memoryview | None = None  #: what the socket had no room for
        self.unsent_fd = -1  #: the socket once more, to be watched for room
        self.is_up = False
        self.is_idle = False
        self.is_leaving = False
        self.has_ended = False  #: it closed its end of the socket

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.name} pid:{self.pid} {len(self.flights)} in flight>"

    # -- giving and taking back

    def put(self, kind: int, frame: bytes, job: Job, cost: float) -> int:
        """Queue ``frame`` for the next `push`; return its number."""
        number = self.sent = self.sent + 1
        self.waiting.append(HEADER.pack(kind, len(frame), number))
        self.waiting.append(frame)
        if len(frame) >= LARGE:
            self.has_large = True
        self.flights.append((number, job, cost))
        self.load += cost
        return number

    def push(self) -> bool:
        """Write what is queued; return false if some of it has to wait until the socket has room."""
        while self.unsent is not None or self.waiting:
            data: Any = self.unsent if self.unsent is not None else self._next_piece()
            try:
                written = self.channel.send(data)
            except (BlockingIOError, InterruptedError):
                written = 0
            except OSError:  # it is dead, and everything will be accounted for when we are told so
                self.unsent = None
                self.waiting.clear()
                return True
            if written < len(data):
                self.unsent = memoryview(data)[written:]
                return False
            self.unsent = None
        return True

    def _next_piece(self) -> bytes:
        """Take what is to be written next: all that waits in one piece, but large frames by themselves, not copied."""
        waiting = self.waiting
        if not self.has_large:
            piece = b"".join(waiting)
            waiting.clear()
            return piece
        count = next((at for at, frame in enumerate(waiting) if len(frame) >= LARGE), len(waiting))
        if count == 0:
            return waiting.pop(0)
        self.has_large = count < len(waiting)
        piece = b"".join(waiting[:count])
        del waiting[:count]
        return piece

    def withdraw(self) -> None:
        """Let it start nothing more of what it has; after `settle`, `take_back` tells what that was."""
        self.page.counters[WITHDRAWN] = self.sent

    def take_back(self) -> list[Job]:
        """Return the jobs withdrawn from it, in order; any that it just claims will be skipped by message."""
        claimed = self.page.counters[CLAIMED]
        jobs: list[Job] = []
        flights = self.flights
        while flights and flights[-1][0] > claimed:
            number, job, cost = flights.pop()
            self._forget(number, cost)
            jobs.append(job)
        jobs.reverse()
        return jobs

    def pop(self) -> tuple[int, Job]:
        """Remove the oldest flight."""
        number, job, cost = self.flights.popleft()
        if self.flights:
            self.load -= cost
        else:
            self.load = 0.0
        if self.limits:
            self.limits.pop(number, None)
        return number, job

    def remove(self, number: int) -> Job | None:
        """Remove the flight ``number``, if it is still there."""
        for flight in self.flights:
            if flight[0] == number:
                self.flights.remove(flight)
                self._forget(number, flight[2])
                return flight[1]
        return None

    def open_unsent_fd(self) -> None:
        """Duplicate the socket: a poller knows one interest a descriptor, and the socket is watched for answers."""
        self.unsent_fd = os.dup(self.channel.fileno())

    def close_unsent_fd(self) -> None:
        os.close(self.unsent_fd)
        self.unsent_fd = -1

    def _forget(self, number: int, cost: float) -> None:
        self.limits.pop(number, None)
        self.load = self.load - cost if self.flights else 0.0

    # -- hearing

    def receive(self) -> list[tuple[int, int, bytes]] | None:
        """Return the frames that one read gives, maybe none; ``None`` at the end of the stream."""
        try:
            data = self.channel.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            return None
        return self.stream.feed(data) if data else None

    # -- ending

    def dismiss(self) -> None:
        """Let it end when it is through with what it runs."""
        self.is_leaving = True
        try:
            self.channel.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def signal(self, signum: int) -> None:
        """Send a signal, if it lives."""
        if self.process.exitcode is None:
            try:
                os.kill(self.pid, signum)
            except ProcessLookupError:
                pass

    def is_alive(self) -> bool:
        """Return whether there is such a process, also where somebody else has taken its exit status."""
        if self.process.exitcode is not None:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def let_go(self) -> None:
        """Close what a sibling inherited of it, in the sibling."""
        self.channel.close()
        for fd in (self.pidfd, self.unsent_fd):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self.unsent_fd = -1

    def close(self) -> None:
        """Free what the parent holds of a dead child."""
        self.let_go()
        self.page.close()
        self.process.join(0)


def open_pidfd(pid: int) -> int:
    """Return a descriptor that is readable once ``pid`` is dead, or -1 where the system has none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1


def start_child(context: Any, name: str, setup: inside.ChildSetup, let_go: Callable[[], Any], index: int = 0) -> Child:
    """Start a process by billiard's ``context``, the one with the number ``index``; ``let_go`` is called in a forked
    child."""
    forks = context.get_start_method() == "fork"
    inside.libc()
    ours, theirs = socket.socketpair()
    page = ProgressPage() if forks else ProgressPage.on_file()

    def let_all_go() -> None:
        ours.close()
        let_go()

    link = inside.Link(
        theirs.fileno(),
        page.fd,
        os.getpid(),
        index,
        # The kernel means the thread that forked, so that has to be one which lives as long as the process.
        dies_with_parent=threading.current_thread() is threading.main_thread(),
        page=page if forks else None,
        let_go=let_all_go if forks else None,
    )
    process = context.Process(target=inside.main, args=(link, setup), name=name)
    process.daemon = True
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, inside.BLOCKED_AT_START)
    try:
        process.start()
    except BaseException:
        ours.close()
        page.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
    ours.setblocking(False)
    return Child(process, ours, page, index)
