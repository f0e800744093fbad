"""Who is alive: each process holds a lock on one byte of a file, and the kernel lets go when it dies."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ("Holders",)


class Holders:
    """The lock file beside a store.

    POSIX locks belong to the process, are not inherited over a fork, and end when *any* descriptor of the file is
    closed.  So a process opens the file once, for all its stores, and never closes it.
    """

    _known: dict[str, Holders] = {}

    @classmethod
    def of(cls, path: str) -> Holders:
        """Return this process's only handle on the file at ``path``."""
        holders = cls._known.get(path)
        if holders is None or holders.pid != os.getpid():
            holders = cls._known[path] = cls(path)
        return holders

    def __init__(self, path: str) -> None:
        self.pid = os.getpid()
        self.path = path
        self._file: int | None = None
        self._own: int | None = None
        self._lock = threading.Lock()

    @property
    def own(self) -> int | None:
        """The number under which this process holds messages; none before the first."""
        if self.pid != os.getpid():  # a forked child holds nothing
            self.pid, self._file, self._own = os.getpid(), None, None
        return self._own

    def claim(self, number: int) -> None:
        """Hold messages under ``number`` from now until the process ends."""
        fcntl.lockf(self._descriptor(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        self._own = number

    def _descriptor(self) -> int:
        if self._file is None:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._file

    @contextmanager
    def if_dead(self, number: int) -> Iterator[bool]:
        """Yield whether the holder ``number`` is dead; if so, nobody else deals with that meanwhile."""
        with self._lock:
            try:
                fcntl.lockf(self._descriptor(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            except OSError:
                yield False
                return
            try:
                yield True
            finally:
                fcntl.lockf(self._descriptor(), fcntl.LOCK_UN, 1, number)
