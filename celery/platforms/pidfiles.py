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

    def remove(self) -> None:
        """Remove the file if it is there and we may."""
        with ignore_errno(errno.ENOENT, errno.EACCES):
            os.unlink(self._path)

    def remove_if_stale(self) -> bool:
        """Remove the file if its process is gone or is this one; say whether there is none now."""
        try:
            pid = self.read_pid()
        except OSError as error:  # a directory, or not ours to read
            raise LockFailed(f"Cannot read the pidfile {self._path}: {_reason(error)}.") from error
        except ValueError:
            print("Broken pidfile found - Removing it.", file=sys.stderr)
            self.remove()
            return True
        if not pid or pid == os.getpid():
            self.remove()
            return True
        if not _process_exists(pid):
            print("Stale pidfile exists - Removing it.", file=sys.stderr)
            self.remove()
            return True
        return False

    def write_pid(self) -> None:
        """Make the file; it must not be there, not even as a link."""
        content = f"{os.getpid()}\n"
        fd = os.open(self._path, PIDFILE_FLAGS | _NOFOLLOW, PIDFILE_MODE)
        try:
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
    return "no such directory" if isinstance(error, FileNotFoundError) else (error.strerror or str(error)).lower()


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # somebody else's, but alive
    return True


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
    if pidlock.is_locked() and not pidlock.remove_if_stale():
        holder = f"Seems we're already running? (pid: {pidlock.read_pid()})"
        print(f"ERROR: Pidfile ({pidlock.path}) already exists.\n{holder}", file=sys.stderr)
        raise SystemExit(EX_CANTCREAT)
    return pidlock.acquire()


def _release_if_ours(pidlock: Pidfile, owner: int) -> None:
    """Remove the file at the end of the process that made it; a forked child leaves it alone."""
    if os.getpid() == owner:
        pidlock.release()
