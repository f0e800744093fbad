"""What runs inside of a child process: set the process up, then serve frames until there are no more."""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import socket
import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from billiard.process import current_process
from kombu.asynchronous import get_event_loop, set_event_loop

from celery.concurrency.guard import SoftlyTerminated, user_code
from celery.concurrency.owing import OWING_SECONDS, owes, pay_before_leaving
from celery.concurrency.processes.calls import run_call
from celery.concurrency.processes.frames import (
    ANSWER,
    DONE_THROUGH,
    HEADER,
    JOB,
    RETIRING,
    SKIPPED,
    UP,
    FrameStream,
)
from celery.concurrency.processes.page import (
    CLAIMED,
    DONE,
    OWING,
    RUNNING,
    SOFT_RAISED,
    SOFT_TARGET,
    SOFT_TERMINATED,
    STARTED_AT,
    STOPPING,
    TERMINATED_BY,
    WITHDRAWN,
    ProgressPage,
)
from celery.utils.failpoints import failpoint
from celery.utils.log import get_logger
from celery.utils.stopping import stopping

if TYPE_CHECKING:
    from celery.abc import Runner

__all__ = ("BLOCKED_AT_START", "ChildSetup", "Link", "main")

logger = get_logger(__name__)

#: Bytes per read.  Below malloc's threshold for mappings, so that a read costs no page faults.
READ_SIZE = 1 << 16

#: Plain successes are told at the end of a batch, or when the first of them is this many seconds old.
REPORT_AFTER = 0.002

#: Signals that ask a child to go.  They end it between two jobs; in a job, only if its parent has meant it.
LEAVE_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name))

#: Blocked by the parent while it starts a child, so that the parent's handlers never run in there.
BLOCKED_AT_START = {*LEAVE_SIGNALS, signal.SIGINT, signal.SIGUSR1}

#: Signals for which the parent may have handlers that make no sense here.
RESET_SIGNALS = ("SIGUSR2", "SIGCHLD", "SIGALRM", "SIGTTIN", "SIGTTOU")

PR_SET_PDEATHSIG = 1

#: ``ru_maxrss`` counts kilobytes, but bytes on macOS.
MAXRSS_UNIT = 1024 if sys.platform == "darwin" else 1


@dataclass(frozen=True)
class ChildSetup:
    """What a child has to know; travels to it by fork or by pickle."""

    make_runner: Callable[[], Runner] | None = None
    initializer: Callable[..., Any] | None = None
    initargs: tuple[Any, ...] = ()
    finalizer: Callable[[int, int], Any] | None = None  #: called with pid and exit code
    max_tasks: int | None = None
    max_memory_kilobytes: int | None = None


@dataclass
class Link:
    """The child's end: its socket and page, and its number among its siblings.  By fork also the page itself, and how
    to let go what it inherited."""

    channel_fd: int
    page_fd: int
    parent_pid: int
    index: int
    dies_with_parent: bool
    page: ProgressPage | None = None
    let_go: Callable[[], Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        from billiard.context import get_spawning_popen

        keep = get_spawning_popen().duplicate_for_child
        fds = {"channel_fd": keep(self.channel_fd), "page_fd": keep(self.page_fd)}
        return {**self.__dict__, **fds, "page": None, "let_go": None}


def main(link: Link, setup: ChildSetup) -> NoReturn:
    """Run a child process from its first to its last moment."""
    if link.let_go is not None:
        link.let_go()
        gc.freeze()  # what we inherited is not looked through time and again, so its pages stay shared
    end_with_parent(link)
    settle_signals()
    leave_event_loop()
    process = current_process()
    process.daemon = False  # tasks may start processes of their own
    process.index = link.index  # Upstream: by this name
    page = link.page or ProgressPage(link.page_fd)
    with socket.socket(fileno=link.channel_fd) as channel:
        service = Service(channel, page, setup)
        exitcode = 1
        try:
            service.prepare()
            exitcode = service.serve()
            service.pay()
        except SystemExit as exit_:
            exitcode = exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 1
            service.report_quietly()
            service.pay()
        except (BrokenPipeError, ConnectionResetError):  # the parent is gone
            exitcode = 0
        finally:
            service.leave(exitcode)
    sys.exit(exitcode)


def end_with_parent(link: Link) -> None:
    """Let the kernel kill this process when its parent dies (Linux; elsewhere the end of the socket tells)."""
    if link.dies_with_parent and sys.platform == "linux":
        libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != link.parent_pid:
        os._exit(0)


def leave_event_loop() -> None:
    """Close our copy of the poller of the parent's loop.  To unregister from it would reach into the parent."""
    hub = get_event_loop()
    if hub is not None:
        hub.poller.close()
        set_event_loop(None)


@cache
def libc() -> Any:
    """Return the C library; the parent calls this before it forks, so that children share what it costs."""
    import ctypes

    return ctypes.CDLL(None)


def trim_memory() -> None:
    """Before the first fork: give back what starting up has left over, and keep from being written what is shared.

    A page is shared until one of its holders writes to it.  The collector writes into all that it looks through, so
    what is here now is frozen.  An entry of the type cache holds a name, and each one that it loses is a write, too.
    """
    import encodings.idna  # noqa: F401  # every process that connects needs it, and it is large

    gc.collect()
    trim = getattr(libc(), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)
    if sys.version_info < (3, 12) and hasattr(sys, "_clear_type_cache"):  # later ones do not count such names
        sys._clear_type_cache()
    gc.freeze()
    # The collector looks at its oldest objects only once a quarter as many came since its last look; what is frozen
    # counts for that until the next one, and cycles of failed tasks would pile up by the megabyte.
    gc.collect()


def settle_signals() -> None:
    """Drop the parent's handlers.  SIGINT is for the parent alone: a terminal sends it to all of us."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in RESET_SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)


class Service:
    """Serves the frames of one parent."""

    def __init__(self, channel: socket.socket, page: ProgressPage, setup: ChildSetup) -> None:
        self.channel = channel
        self.page = page
        self.setup = setup
        self.pid = os.getpid()
        self.runner: Any = None
        #: When the successes not yet told began, and the number of the last one.
        self.starts: list[float] = []
        self.last = 0
        self.is_waiting = False
        self.was_asked_to_leave = False

    def prepare(self) -> None:
        """Set up the process as the worker wants it, then say that it is ready."""
        setup = self.setup
        stopping.forget()
        stopping.sign = lambda: self.page.counters[STOPPING] > 0
        if setup.initializer is not None:
            setup.initializer(*setup.initargs)
        self.runner = setup.make_runner() if setup.make_runner is not None else NoRunner()
        for signum in LEAVE_SIGNALS:
            signal.signal(signum, self._on_leave_signal)
        signal.signal(signal.SIGUSR1, self._on_soft_limit)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.register_at_fork(before=hold_signals, after_in_parent=let_signals_come, after_in_child=be_a_plain_process)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED_AT_START)
        self.channel.sendall(HEADER.pack(UP, 0, 0))

    def serve(self) -> int:
        """Run frames until the parent closes its end, or it is time to retire; return the exit code."""
        page = self.page
        counters, times = page.counters, page.times
        feed = FrameStream().feed
        run, flush = self.runner.run, self.runner.flush
        starts = self.starts
        send = self.channel.sendall
        limited = self.setup.max_tasks or self.setup.max_memory_kilobytes
        executed = 0
        data = b""
        while True:
            data = data or self._wait()
            if not data:
                return 0
            for kind, number, body in feed(data):
                counters[CLAIMED] = number
                if counters[WITHDRAWN] >= number:
                    self.report()
                    send(HEADER.pack(SKIPPED, 0, number))
                    continue
                failpoint("child.before_start")
                now = monotonic()
                if starts and now - starts[0] > REPORT_AFTER:
                    self.report()
                user_code.begin()
                times[STARTED_AT] = now
                counters[RUNNING] = number
                answer = run(body) if kind == JOB else run_call(body)
                executed += 1
                leaving = self.was_asked_to_leave or (limited and self._is_worn_out(executed))
                if answer:
                    self.report(pack_answer(number, now, answer))
                    counters[DONE] = number
                else:
                    starts.append(now)
                    self.last = number
                    counters[DONE] = number
                if leaving:
                    self.report()
                    self.pay()
                    send(HEADER.pack(RETIRING, 0, number))
                    return 0
            data = self._more() if starts else b""
            if data:
                continue  # one answer for all of them: `REPORT_AFTER` sees to it that it is not late
            if starts:
                self.report()
            else:
                flush()

    def _more(self) -> bytes:
        """Return what is here already, maybe nothing."""
        try:
            return self.channel.recv(READ_SIZE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""

    def _wait(self) -> bytes:
        self.is_waiting = True
        if self.was_asked_to_leave:
            return b""
        while owes(self.runner) and not select.select([self.channel], [], [], OWING_SECONDS)[0]:
            self.is_waiting = False
            self.runner.flush()
            self.is_waiting = True
        data = self.channel.recv(READ_SIZE)
        self.is_waiting = False
        return data

    def report(self, and_then: bytes = b"") -> None:
        """Tell of the plain successes since the last time; their results are safe by then."""
        starts = self.starts
        if starts:
            self.runner.flush()
            starts.append(monotonic())
            body = array("d", starts).tobytes()
            starts.clear()
            and_then = HEADER.pack(DONE_THROUGH, len(body), self.last) + body + and_then
        if and_then:
            self.channel.sendall(and_then)

    def pay(self) -> None:
        """Before the end: store what is owed to a store that is away; the parent waits for that."""
        self.page.counters[OWING] = 1
        pay_before_leaving(self.runner)
        self.page.counters[OWING] = 0

    def report_quietly(self) -> None:
        """Report on the way out; the page tells the rest if the parent is gone, or a store fails."""
        try:
            self.report()
        except Exception as error:
            logger.debug("Child %s could not report: %r", self.pid, error)

    def leave(self, exitcode: int) -> None:
        """Run the finalizer; whatever it does, the process ends."""
        if self.setup.finalizer is None:
            return
        try:
            self.setup.finalizer(self.pid, exitcode)
        except Exception:
            logger.error("Process finalizer failed", exc_info=True)

    def _is_worn_out(self, executed: int) -> bool:
        """Return true after the last task of this process, or when it has grown too big."""
        setup = self.setup
        if setup.max_tasks and executed >= setup.max_tasks:
            return True
        if setup.max_memory_kilobytes:
            used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // MAXRSS_UNIT
            if used > setup.max_memory_kilobytes:
                logger.warning("Child process exiting: %d kB in use, more than %d", used, setup.max_memory_kilobytes)
                return True
        return False

    # -- signals; handlers run in the main thread, between two byte codes

    def _on_soft_limit(self, signum: int, frame: FrameType | None) -> None:
        counters = self.page.counters
        number = counters[RUNNING]
        if counters[SOFT_TARGET] == number and counters[DONE] < number and counters[SOFT_RAISED] != number:
            announce = partial(counters.__setitem__, SOFT_RAISED, number)
            if counters[SOFT_TERMINATED] == number:
                user_code.interrupt(announce, SoftlyTerminated)
            else:
                user_code.interrupt(announce)

    def _on_leave_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.page.counters[TERMINATED_BY] == signum:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(self.pid, signum)
            return
        self.was_asked_to_leave = True
        if self.is_waiting:
            raise SystemExit(0)


class NoRunner:
    """Stands in a pool that only takes callables."""

    def run(self, frame: bytes) -> bytes:
        raise RuntimeError("This pool was made without a runner, it takes callables only")

    def flush(self) -> None:
        pass


def hold_signals() -> None:
    """Before a task forks: CPython forgets what comes while it is busy with that."""
    signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED_AT_START)


def let_signals_come() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED_AT_START)


def be_a_plain_process() -> None:
    """In a process that a task forked: have none of our signal handlers."""
    for signum in (*LEAVE_SIGNALS, signal.SIGUSR1):
        if getattr(signal.getsignal(signum), "__self__", None).__class__ is Service:
            signal.signal(signum, signal.SIG_DFL)
    let_signals_come()


def pack_answer(number: int, began: float, answer: bytes) -> bytes:
    """Return the frame for the answer to frame ``number``."""
    times = array("d", (began, monotonic())).tobytes()
    return HEADER.pack(ANSWER, len(times) + len(answer), number) + times + answer
