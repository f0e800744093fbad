"""Pidfiles: a file with the number of the process that holds it."""

from __future__ import annotations

import atexit
import errno
import os
import sys
from typing import Any

from .system import EX_CANTCREAT, ignore_errno

#: a new file or none; ``O_NOFOLLOW`` is added where files are opened
PIDFILE_FLAGS = os.O_CREAT | os.O_EXCL | os.O_WRONLY
#: rw-r--r--
PIDFILE_MODE = 0o644

#: Seconds by which the clocks of files and of processes may differ: the time of boot is known to a second only.
_CLOCK_TOLERANCE = 2
#: place of the time of start, in ticks since boot, in what `_stat_of` returns
_START_TIME = 19

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)


class LockFailed(Exception):
    """The pidfile cannot be made."""


class Pidfile:
    """A file with the number of the process that holds it; as a context manager it is acquired and released."""

    path: str | None = None

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    def acquire(self) -> Pidfile:
        """Make the file.

        Raises:
            LockFailed: it is there, or cannot be made.
        """
        try:
            self.write_pid()
        except FileExistsError as error:
            raise LockFailed(str(error)) from error
        except OSError as error:
            raise LockFailed(f"Cannot write the pidfile {self._path}: {_reason(error)}.") from error
        return self

    __enter__ = acquire

    def is_locked(self) -> bool:
        """Say whether the file is there."""
        return os.path.lexists(self._path)

    def release(self, *args: Any) -> None:
        """Remove the file."""
        self.remove()

    __exit__ = release

    @property
    def _path(self) -> str:
        assert self.path is not None
        return self.path

    def read_pid(self) -> int | None:
        """Return the number in the file, or ``None`` if there is no file.

        Raises:
            ValueError: there is something else in it, or nothing yet.
        """
        try:
            with open(self._path) as file:
                line = file.readline()
        except FileNotFoundError:
            return None
        if not line.endswith("\n"):
            # the line end is written last, so somebody is at it still
            raise ValueError(f"Partial or invalid pidfile {self._path}")
        try:
            return int(line.strip())
        except ValueError:
            raise ValueError(f"pidfile {self._path} contents invalid: {line.strip()!r}") from None

    def holder(self) -> int | None:
        """Return the living process that made the file, or ``None``.

        A process that began after the file was written, and is no celery, merely got the number of a dead one; that
        is how it goes in containers, where numbers start over.

        Raises:
            ValueError: see `read_pid`.
        """
        pid = self.read_pid()
        if not pid or not is_alive(pid):
            return None
        return None if _got_the_number_later(pid, self._path) else pid

    def remove(self) -> None:
        """Remove the file if it is there and we may."""
        with ignore_errno(errno.ENOENT, errno.EACCES, errno.EPERM):
            os.unlink(self._path)

    def remove_if_stale(self) -> bool:
        """Remove the file if its process is gone or is this one; say whether there is none now."""
        try:
            pid = self.read_pid()
            if pid and pid != os.getpid():
                if self.holder() is not None:
                    return False
                print("Stale pidfile exists - Removing it.", file=sys.stderr)
        except OSError as error:  # a directory, or not ours to read
            raise LockFailed(f"Cannot write the pidfile {self._path}: {_reason(error)}.") from error
        except ValueError:
            print("Broken pidfile found - Removing it.", file=sys.stderr)
        self.remove()
        return True

    def write_pid(self) -> None:
        """Make the file; it must not be there, not even as a link."""
        content = f"{os.getpid()}\n"
        fd = os.open(self._path, PIDFILE_FLAGS | _NOFOLLOW, PIDFILE_MODE)
        try:
            os.fchmod(fd, PIDFILE_MODE)  # a daemon's umask is for its other files; this one is there to be read
            with open(fd, "w") as file:
                file.write(content)
                file.flush()
                os.fsync(fd)
        except OSError:  # a full disk; half a pidfile would only mislead
            self.remove()
            raise
        with open(self._path) as written:
            if written.read() != content:
                raise LockFailed(f"The pidfile {self._path} holds something else than was written: who else uses it?")


PIDFile = Pidfile


def _reason(error: OSError) -> str:
    known: dict[type[OSError], str] = {FileNotFoundError: "no such directory", IsADirectoryError: "it is a directory"}
    return known.get(type(error)) or (error.strerror or str(error)).lower()


def is_alive(pid: int) -> bool:
    """Say whether there is such a process; one that has ended and is not reaped yet counts as gone."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # somebody else's, but alive
    return _stat_of(pid)[:1] != ["Z"]


def _stat_of(pid: int) -> list[str]:
    """Return what Linux says of a process from its state on; nothing elsewhere."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def _got_the_number_later(pid: int, path: str) -> bool:
    """Say whether the process ``pid`` is no celery and began after the file was written; Linux only."""
    stat = _stat_of(pid)
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            is_celery = b"celery" in file.read()
        with open("/proc/stat") as file:
            booted_at = next(int(line.split()[1]) for line in file if line.startswith("btime "))
        began_at = booted_at + int(stat[_START_TIME]) / os.sysconf("SC_CLK_TCK")
        return not is_celery and began_at > os.stat(path).st_mtime + _CLOCK_TOLERANCE
    except (OSError, IndexError, StopIteration):
        return False


def create_pidlock(pidfile: str) -> Pidfile:
    """Make a pidfile that is removed at exit.

    Where a living process holds it, this tells so and exits with ``EX_CANTCREAT``.
    """
    pidlock = acquired(pidfile)
    atexit.register(_release_if_ours, pidlock, os.getpid())
    return pidlock


def acquired(pidfile: str) -> Pidfile:
    """Make a pidfile, in place of one that is stale; exit where a living process holds it."""
    pidlock = Pidfile(pidfile)
    if _is_ours(pidlock):  # made before we gave up the right to make it
        return pidlock
    if pidlock.is_locked() and not pidlock.remove_if_stale():
        holder = f"Seems we're already running? (pid: {pidlock.read_pid()})"
        print(f"ERROR: Pidfile ({pidlock.path}) already exists.\n{holder}", file=sys.stderr)
        raise SystemExit(EX_CANTCREAT)
    return pidlock.acquire()


def _is_ours(pidlock: Pidfile) -> bool:
    assert pidlock.path is not None
    try:
        return not os.path.islink(pidlock.path) and pidlock.read_pid() == os.getpid()
    except (OSError, ValueError):
        return False


def _release_if_ours(pidlock: Pidfile, owner: int) -> None:
    """Remove the file at the end of the process that made it; a forked child leaves it alone."""
    if os.getpid() == owner:
        pidlock.release()
