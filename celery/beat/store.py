"""The schedule file: when each entry was sent last, and how often.  Plain text, and never more than that.

::

    celeriac-beat 1 0000000000000321 0000000002          the bytes of the file, the number of entries
    {"__version__": "5.7.0", "tz": null, ...}            padded to the end of the first block
    0001795177776383539 0000000042 9f3c21aa "cleanup"    microseconds since 1970, count, checksum, name

The first 39 characters of a line are its slot.  Sending an entry overwrites its slot in place, by one write within one
page: whenever the process is killed the slot is the old or the new one, and it takes no room on a full disk.
Entries that come or go make a new file, which takes the place of the old one in one step.

Whoever holds the lock on the file beats.  A file that was cut or damaged is set aside.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from celery.utils.failpoints import failpoint, is_active

__all__ = ("Damaged", "InUse", "Run", "ScheduleFile", "open")

MAGIC = "celeriac-beat 1"
_FIRST_BLOCK = 512
_PAGE = 4096
_SLOT = "{:019d} {:010d} {:08x}"
_SLOT_BYTES = 39

#: Protections that a test of the tests has switched off.
_WRITES_NOTHING = is_active("unprotect.beat_record")
_TRUSTS_FILES = is_active("unprotect.beat_checks")


class Run(NamedTuple):
    """When an entry was sent last, in microseconds since 1970 (UTC), and how often it was."""

    last_run_at: int
    times: int


class Damaged(Exception):
    """The file is none of ours, or only a part of one."""


class InUse(Exception):
    """Another process holds the file."""

    def __init__(self, path: str) -> None:
        super().__init__(f"another beat is using {path}")


def _checksum(run: Run, name: str) -> int:
    return zlib.crc32(f"{run.last_run_at} {run.times} {name}".encode())


def _slot(run: Run, name: str) -> bytes:
    return _SLOT.format(run.last_run_at, run.times, _checksum(run, name)).encode()


class ScheduleFile:
    """An open schedule file: a mapping of entries' names to their last `Run`, and the lock on it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.runs: dict[str, Run] = {}
        self.meta: dict[str, Any] = {}
        self._offsets: dict[str, int] = {}
        self._fd: int | None = None

    # -- opening

    def open(self) -> None:
        """Lock the file and read it; an empty one is made where there is none.

        Raises:
            InUse: another process has it.
            Damaged: it is not whole; nothing is locked then.
            OSError: it cannot be read or made.
        """
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._lock(fd)
                if self._is_in_place(fd):  # else it was replaced between opening and locking
                    self._read(fd)
                    self._fd = fd
                    return
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _lock(self, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise InUse(self.path) from None
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):  # file systems without locks
                raise

    def _is_in_place(self, fd: int) -> bool:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return False
        mine = os.fstat(fd)
        return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)

    def _read(self, fd: int) -> None:
        with os.fdopen(os.dup(fd), "rb") as file:
            file.seek(0)
            data = file.read()
        if not data:
            self.meta, self.runs, self._offsets = {}, {}, {}
            return
        self.meta, self.runs, self._offsets = parsed(data)

    def close(self) -> None:
        """Write out what is there and give the lock back."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    @property
    def is_open(self) -> bool:
        return self._fd is not None

    # -- writing

    def note(self, name: str, run: Run) -> bool:
        """Record one run in place; returns false for an entry that the file does not have yet.

        The record outlives this process at once, and a crash of the machine from the next `sync` on.
        """
        offset = self._offsets.get(name)
        if offset is None or self._fd is None:
            return False
        if not _WRITES_NOTHING:
            os.pwrite(self._fd, _slot(run, name), offset)
        self.runs[name] = run
        return True

    def replace(self, runs: Mapping[str, Run], meta: Mapping[str, Any]) -> None:
        """Write a new file with these runs and put it in place of the old one, in one step."""
        assert self._fd is not None, "only who holds the lock writes"
        data, offsets = rendered(runs, meta)
        path = f"{self.path}.new"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            self._lock(fd)
            _write_all(fd, data)
            os.fsync(fd)
            failpoint("beat.before_rename")
            os.replace(path, self.path)
        except BaseException:
            os.close(fd)
            _remove(path)
            raise
        old, self._fd = self._fd, fd
        os.close(old)
        self.runs, self.meta, self._offsets = dict(runs), dict(meta), offsets
        _sync_directory(self.path)

    def sync(self) -> None:
        """Have the disk hold what was recorded."""
        if self._fd is not None:
            os.fsync(self._fd)

    def set_aside(self) -> str:
        """Move the file out of the way; returns its new name."""
        path = f"{self.path}.damaged"
        os.replace(self.path, path)
        return path


def open(path: str) -> ScheduleFile:  # as `shelve.open`, which stands in its place elsewhere
    """Return the schedule file at ``path``, locked and read; raises what `ScheduleFile.open` does."""
    file = ScheduleFile(path)
    file.open()
    return file


# -- the format


def rendered(runs: Mapping[str, Run], meta: Mapping[str, Any]) -> tuple[bytes, dict[str, int]]:
    """Return the bytes of a file, and where in it the slot of each entry is."""
    lines, offsets = [], {}
    position = _FIRST_BLOCK
    for name, run in runs.items():
        room = _PAGE - position % _PAGE
        if room < _SLOT_BYTES:  # a slot lies within one page
            lines.append(b" " * (room - 1) + b"\n")
            position += room
        line = _slot(run, name) + b" " + json.dumps(name).encode() + b"\n"
        lines.append(line)
        offsets[name] = position
        position += len(line)
    head = f"{MAGIC} {position:016d} {len(offsets):010d}\n{json.dumps(dict(meta))}".encode()
    if len(head) >= _FIRST_BLOCK:
        raise ValueError(f"{meta!r} is too long for the first block of the schedule file")
    return head.ljust(_FIRST_BLOCK - 1) + b"\n" + b"".join(lines), offsets


def parsed(data: bytes) -> tuple[dict[str, Any], dict[str, Run], dict[str, int]]:
    """Return what a file holds: its first block, the runs, and where their slots are.

    Raises:
        Damaged: it is not whole.
    """
    try:
        head, meta = data[:_FIRST_BLOCK].decode().split("\n", 1)
        magic, size, count = head.rsplit(" ", 2)
        if magic != MAGIC:
            raise Damaged("it is no schedule file of this program")
        if len(data) < int(size):
            raise Damaged(f"{len(data)} of {int(size)} bytes are left")
        found = {name: (run, offset) for name, run, offset in _lines(data[: int(size)])}
        if len(found) != int(count):
            raise Damaged(f"{len(found)} of {int(count)} entries are left")
        return (
            json.loads(meta),
            {name: run for name, (run, _) in found.items()},
            {name: offset for name, (_, offset) in found.items()},
        )
    except ValueError as error:  # also UnicodeDecodeError, JSONDecodeError
        raise Damaged(f"it cannot be read: {error}") from error


def _lines(data: bytes) -> Iterator[tuple[str, Run, int]]:
    position = _FIRST_BLOCK
    while position < len(data):
        end = data.find(b"\n", position)
        end = len(data) if end < 0 else end
        line = data[position:end]
        if line.strip():
            moment, count, checksum, name = line.split(b" ", 3)
            run, name = Run(int(moment), int(count)), json.loads(name)
            if int(checksum, 16) != _checksum(run, name) and not _TRUSTS_FILES:
                raise Damaged(f"the line of {name!r} was changed")
            yield name, run, position
        position = end + 1


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def _sync_directory(path: str) -> None:
    """Have the disk hold the new name of the file; where directories cannot be synced, that is as good as it gets."""
    try:
        fd = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(fd)
    except OSError:
        pass
    finally:
        os.close(fd)
