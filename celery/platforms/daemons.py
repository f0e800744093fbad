"""Daemons: leave terminal and session behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from .files import close_open_fds, fd_by_path, maybe_fileno
from .pidfiles import create_pidlock
from .signalling import signals
from .system import IS_WINDOWS
from .users import check_may_become, maybe_drop_privileges

DAEMON_WORKDIR = "/"


class DaemonContext:
    """Detaches the process from its terminal while it is open.

    ``after_chdir`` is called in the daemon, before standard files are redirected.  With ``fake`` nothing forks.
    """

    _is_open = False

    def __init__(
        self,
        pidfile: str | None = None,
        workdir: str | None = None,
        umask: int | str | None = None,
        fake: bool = False,
        after_chdir: Callable[[], Any] | None = None,
        after_forkers: bool = True,
        **kwargs: Any,
    ) -> None:
        # an octal number where it is text, as in shells
        self.umask = int(umask, 8) if isinstance(umask, str) else umask
        self.workdir = workdir or DAEMON_WORKDIR
        self.fake = fake
        self.after_chdir = after_chdir
        self.after_forkers = after_forkers
        self.stdfds = (sys.stdin, sys.stdout, sys.stderr)

    def redirect_to_null(self, fd: int | None) -> None:
        """Have ``fd`` lead nowhere."""
        if fd is not None:
            dest = os.open(os.devnull, os.O_RDWR)
            os.dup2(dest, fd)
            if dest != fd:
                os.close(dest)

    def open(self) -> None:
        if self._is_open:
            return
        if not self.fake:
            self._detach()
        os.chdir(self.workdir)
        if self.umask is not None:
            os.umask(self.umask)
        if self.after_chdir:
            self.after_chdir()
        if not self.fake:
            self._close_inherited()
        self._is_open = True

    __enter__ = open

    def close(self, *args: Any) -> None:
        self._is_open = False

    __exit__ = close

    def _detach(self) -> None:
        """Fork twice: the child leads a session without terminal, its child can never get one."""
        if os.fork():
            os._exit(0)
        os.setsid()
        if os.fork():
            os._exit(0)

    def _close_inherited(self) -> None:
        # log files that are open already stay open, and so do sockets of children (after_forkers)
        from celery.utils.log import iter_open_logger_fds

        keep: list[Any] = [*self.stdfds, *iter_open_logger_fds()]
        if self.after_forkers:
            keep += _multiprocessing_fds()
        keep += fd_by_path(["/dev/urandom"])
        close_open_fds(keep)
        for file in self.stdfds:
            self.redirect_to_null(maybe_fileno(file))


def _multiprocessing_fds() -> list[int]:
    """Return the descriptors that billiard's tracker of semaphores holds."""
    tracker = sys.modules.get("billiard.semaphore_tracker")
    fd = getattr(getattr(tracker, "_semaphore_tracker", None), "_fd", None)
    return [fd] if isinstance(fd, int) else []


def detached(
    logfile: str | None = None,
    pidfile: str | None = None,
    uid: Any = None,
    gid: Any = None,
    umask: int | str | None = None,
    workdir: str | None = None,
    fake: bool = False,
    **opts: Any,
) -> DaemonContext:
    """Return a context to detach in, as user ``uid`` and group ``gid``.

    The pidfile is made, and held, before privileges are dropped: its place may be one that only the superuser writes
    to, and no one else shall change what is in it.  That the log file can be written is checked after it.  Without
    ``umask`` files are private (077); upstream's default is 0, with which everybody could write them.

    Raises:
        RuntimeError: this system cannot detach.
        PermissionError: this process may not become that user or group.
    """
    if not hasattr(os, "fork") or IS_WINDOWS:
        raise RuntimeError("This platform does not support detach.")
    workdir = os.getcwd() if workdir is None else workdir
    signals.reset("SIGCLD")  # or the shell's setting would reap our children
    check_may_become(uid, gid)  # while there is a terminal to complain on

    def prepare_files() -> None:
        if pidfile:
            create_pidlock(pidfile)
        maybe_drop_privileges(uid=uid, gid=gid)
        if logfile:
            with open(logfile, "a"):
                pass

    umask = 0o077 if umask is None else umask
    return DaemonContext(umask=umask, workdir=workdir, fake=fake, after_chdir=prepare_files, **opts)
